//! A gateway that comes back with what it had: the tier on disk.

use std::path::Path;
use std::time::Duration;

use http::Method;
use tempfile::TempDir;

use crate::support::{Origin, Served, folder, options, serve_with, try_start};

fn file(origin: &Origin, size: &str) -> String {
    format!(
        "[cache]\ndisk = {{ path = \"kept\", size = \"{size}\" }}\n[function.o]\nhttp = \"http://{}\"\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\ncache = {{ tags = [\"all\"] }}\n",
        origin.address
    )
}

async fn gateway(origin: &Origin, folder: TempDir) -> Served {
    serve_with(&file(origin, "1MiB"), folder, options()).await
}

/// Stops a gateway; its folder.
async fn stop(served: Served) -> TempDir {
    served.gateway.stop().await;
    served.folder
}

/// What was done with a request, and which request of the upstream it is answered with.
async fn ask(served: &Served, path: &str) -> (String, String) {
    let answer = served.client.get_with(path, &[("host", "h")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let status = answer.field("cache-status").to_owned();
    (status, answer.field("x-number").to_owned())
}

/// The files that hold responses.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let parts = std::fs::read_dir(folder.join("kept")).unwrap().map(|part| part.unwrap().path());
    let inside = |part: std::path::PathBuf| std::fs::read_dir(part).unwrap();
    parts.filter(|part| part.is_dir()).flat_map(inside).map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_there_after_a_restart() {
    let origin = Origin::start().await;
    let served = gateway(&origin, folder()).await;
    ask(&served, "/a?cc=max-age=60").await;
    ask(&served, "/b?cc=max-age=60&vary=accept").await;
    let served = gateway(&origin, stop(served).await).await;
    let (status, number) = ask(&served, "/a?cc=max-age=60").await;
    assert!(
        status.contains("; hit;") && status.ends_with("detail=disk") && number == "1",
        "{status}"
    );
    assert!(ask(&served, "/b?cc=max-age=60&vary=accept").await.0.ends_with("detail=disk"));
    let again = ask(&served, "/a?cc=max-age=60").await.0;
    assert!(again.contains("; hit") && !again.contains("detail"), "from memory: {again}");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_hold_after_a_restart() {
    let origin = Origin::start().await;
    let served = gateway(&origin, folder()).await;
    for path in ["/a?cc=max-age=60", "/b?cc=max-age=60"] {
        ask(&served, path).await;
    }
    let json = [("content-type", "application/json")];
    let wish = "{\"url\":\"/a?cc=max-age=60\"}";
    served.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
    let served = gateway(&origin, stop(served).await).await;
    assert!(ask(&served, "/a?cc=max-age=60").await.0.contains("fwd=uri-miss"));
    assert!(ask(&served, "/b?cc=max-age=60").await.0.ends_with("detail=disk"));
    let wish = "{\"tag\":\"all\",\"soft\":true}";
    served.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
    let served = gateway(&origin, stop(served).await).await;
    assert!(!ask(&served, "/b?cc=max-age=60").await.0.contains("hit"));
    assert_eq!(origin.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_torn_is_dropped() {
    let origin = Origin::start().await;
    let served = gateway(&origin, folder()).await;
    let paths = ["/a?cc=max-age=60", "/b?cc=max-age=60", "/c?cc=max-age=60"];
    for path in paths {
        ask(&served, path).await;
    }
    let folder = stop(served).await;
    let files = files(folder.path());
    assert_eq!(files.len(), 3);
    std::fs::write(&files[0], "").unwrap();
    let torn = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &torn[..torn.len() / 2]).unwrap();
    // As if the gateway had been killed while it wrote.
    std::fs::write(files[2].with_extension("new"), &torn[..10]).unwrap();
    let served = gateway(&origin, folder).await;
    let mut warm = 0;
    for path in paths {
        warm += u64::from(ask(&served, path).await.0.ends_with("detail=disk"));
    }
    assert_eq!((warm, origin.requests()), (1, 5));
    let numbers = served.admin().get("/system/cache").await.json();
    assert_eq!(numbers["disk"]["torn"], 1, "one was cut, one is empty: {numbers}");
    let folder = stop(served).await;
    assert!(self::files(folder.path()).iter().all(|file| file.extension().is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded_and_the_oldest_goes() {
    let origin = Origin::start().await;
    let served = serve_with(&file(&origin, "100KiB"), folder(), options()).await;
    for number in 0..20 {
        ask(&served, &format!("/{number}?cc=max-age=60&size=10000")).await;
    }
    let folder = stop(served).await;
    let held: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(held <= 100 * 1024 && held > 50 * 1024, "{held}");
    let served = gateway(&origin, folder).await;
    assert!(ask(&served, "/19?cc=max-age=60&size=10000").await.0.ends_with("detail=disk"));
    assert!(ask(&served, "/0?cc=max-age=60&size=10000").await.0.contains("fwd=uri-miss"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_gateway() {
    let origin = Origin::start().await;
    let served = gateway(&origin, folder()).await;
    let error = try_start(&served.folder, &file(&origin, "1MiB")).await.unwrap_err();
    assert!(error.to_string().contains("another gateway uses it"), "{error}");
    let folder = stop(served).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    gateway(&origin, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_request_for_what_is_stored_alone_are_answered_from_the_disk() {
    let origin = Origin::start().await;
    let served = gateway(&origin, folder()).await;
    for path in ["/a?cc=max-age=60", "/b?cc=max-age=60"] {
        ask(&served, path).await;
    }
    let served = gateway(&origin, stop(served).await).await;
    let host = [("host", "h")];
    let head = served.client.send(Method::HEAD, "/a?cc=max-age=60", &host, "").await.unwrap();
    assert!(head.field("cache-status").ends_with("detail=disk"), "{head:?}");
    assert!(head.field("content-length").parse::<u32>().unwrap() > 10 && head.body.is_empty());
    let only = [("host", "h"), ("cache-control", "only-if-cached")];
    let stored = served.client.get_with("/b?cc=max-age=60", &only).await;
    assert!(stored.field("cache-status").ends_with("detail=disk"), "{stored:?}");
    assert_eq!((stored.status, stored.field("x-number")), (http::StatusCode::OK, "2"));
    assert_eq!(served.client.get_with("/c?cc=max-age=60", &only).await.status, 504);
    assert_eq!(origin.requests(), 2);
}
