use super::*;

fn file(name: &str, text: &str) -> (tempfile::TempDir, Result<RowFile, DataError>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    let file = RowFile::open(&folder.path().join(name));
    (folder, file)
}

#[test]
fn rows_are_found_in_any_order() {
    let lines: String =
        (0..1_000).map(|n| format!("{{\"prompt\":\"p{n}\",\"n\":{n}}}\n\n")).collect();
    let (_folder, opened) = file("a.jsonl", &lines);
    let mut rows = opened.unwrap();
    assert_eq!(rows.rows(), 1_000);
    for n in [0, 999, 31, 32, 33, 500, 1] {
        assert_eq!(rows.value(n, "prompt"), format!("p{n}"));
        assert_eq!(rows.value(n, "n"), n.to_string());
    }
    assert_eq!(rows.value(3, "none"), "");
    assert!(rows.check_column("prompt").is_ok() && rows.check_column("none").is_err());
}

#[test]
fn csv_has_a_header_and_rows_of_several_lines() {
    let (_folder, opened) =
        file("a.csv", "id, question\n1,\"two\nlines, \"\"quoted\"\"\"\r\n2,b\n");
    let mut rows = opened.unwrap();
    assert_eq!(rows.rows(), 2);
    assert_eq!(rows.value(0, "question"), "two\nlines, \"quoted\"");
    assert_eq!(
        (rows.value(1, "id").into_owned(), rows.value(1, "question").into_owned()),
        ("2".into(), "b".into())
    );
}

#[test]
fn text_and_lists_are_read_as_well() {
    let (_folder, text) = file("a.txt", "first\nsecond\n");
    assert_eq!(text.unwrap().value(1, "prompt"), "second");
    let (_folder, list) = file("a.json", "[{\"prompt\":\"x\"},{\"prompt\":\"y\"}]");
    assert_eq!(list.unwrap().value(1, "prompt"), "y");
}

#[test]
fn records_in_parquet_are_rows() {
    use gatewright_record::{Format, Invocation, RecordWriter};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let file = File::create(&path).unwrap();
    let mut writer = RecordWriter::new(file, Format::Parquet).unwrap();
    for id in 0..1_000 {
        let function = format!("f{id}").into();
        writer.write(&Invocation { id, function, ..Invocation::default() }).unwrap();
    }
    writer.finish().unwrap();
    let mut rows = RowFile::open(&path).unwrap();
    assert_eq!(rows.rows(), 1_000);
    for n in [999, 0, 500] {
        assert_eq!(
            (rows.value(n, "id").into_owned(), rows.value(n, "function").into_owned()),
            (n.to_string(), format!("f{n}"))
        );
    }
    assert!(rows.check_column("status").is_ok() && rows.check_column("prompt").is_err());
    std::fs::write(&path, "no Parquet").unwrap();
    assert!(RowFile::open(&path).is_err());
}

#[test]
fn zipped_files_are_read() {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    let folder = tempfile::tempdir().unwrap();
    let zipped = |name: &str, text: &str| {
        let path = folder.path().join(name);
        let mut out = GzEncoder::new(File::create(&path).unwrap(), Compression::default());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap();
        RowFile::open(&path)
    };
    let lines: String = (0..1_000).map(|n| format!("{{\"prompt\":\"p{n}\"}}\n")).collect();
    let mut rows = zipped("a.jsonl.gz", &lines).unwrap();
    assert_eq!((rows.rows(), rows.value(999, "prompt").into_owned()), (1_000, "p999".into()));
    assert_eq!(zipped("a.json.gz", "[{\"prompt\":\"x\"}]").unwrap().value(0, "prompt"), "x");
    assert_eq!(zipped("a.csv.GZ", "id\n7\n").unwrap().value(0, "id"), "7");
    std::fs::write(folder.path().join("b.csv.gz"), "id\n7\n").unwrap();
    let error = RowFile::open(&folder.path().join("b.csv.gz")).unwrap_err().to_string();
    assert!(error.contains("it cannot be unzipped"), "{error}");
}

#[test]
fn what_is_wrong_is_said() {
    for (name, text, part) in [
        ("a.txt", "\n\n", "no rows"),
        ("a.xls", "x", "its name says no format"),
        ("a.jsonl", "{\"a\":\n", "line 1"),
        ("a.json", "{}", "no list of objects"),
    ] {
        let error = file(name, text).1.unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}
