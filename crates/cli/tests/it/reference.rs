//! The pages that are made from the code are those in docs/reference.

use crate::command::{finish, gatewright, told, workspace};

#[test]
fn pages_are_current() {
    let folder = tempfile::tempdir().unwrap();
    // Whatever the environment says.
    let mut generate = gatewright(folder.path());
    for name in ["GATEWRIGHT_PYTHON", "GATEWRIGHT_LOG", "GATEWRIGHT_ADMIN"] {
        generate.env(name, "elsewhere");
    }
    let output = finish(generate.args(["generate", "."]));
    assert!(output.status.success(), "{}", told(&output));
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let made = std::fs::read_to_string(entry.path()).unwrap();
        let kept = workspace().join("docs/reference").join(entry.file_name());
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(
            made == kept,
            "docs/reference/{} is old; run: cargo run -p gatewright-cli -- generate docs/reference",
            entry.file_name().display()
        );
        count += 1;
    }
    assert_eq!(count, 10);
}
