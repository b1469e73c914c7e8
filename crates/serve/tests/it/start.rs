//! Gateways that do not start, and say why.

use gatewright_serve::{Options, ServeError, Shutdown};

use crate::support::{folder, options, system, try_start};

/// The error and the hint of a start that fails; nothing of it is left running.
async fn fails(text: &str) -> (String, String) {
    let folder = folder();
    let error = try_start(&folder, text).await.expect_err("it does not start");
    let path = folder.path().to_str().unwrap().to_owned();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let line = std::fs::read_to_string(entry.unwrap().path().join("cmdline"));
        assert!(!line.unwrap_or_default().contains(&path), "a worker is left");
    }
    (error.to_string(), error.hint().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_module_is_named() {
    let (error, hint) = fails("[function.f]\npython = \"modles:Square\"\n").await;
    assert!(error.starts_with("function `f` did not start: ModuleNotFoundError"), "{error}");
    assert!(error.contains("`modles`"), "{error}");
    assert!(hint.contains("looks for modles.py beside the system file"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_class_is_named_with_the_nearest_one() {
    let (error, hint) = fails("[function.f]\npython = \"models:Sqare\"\n").await;
    let expected = "function `f` did not start: AttributeError: module `models` has no class \
                    `Sqare`, but `Square`";
    assert_eq!(error, expected);
    assert!(hint.contains("asks models.py for a class named Sqare"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_function_that_fails_ends_the_others_too() {
    let (error, _) = fails(
        "[function.good]\npython = \"models:Square\"\nreplicas = { min = 2 }\n\
         [function.slow]\npython = \"models:Hang\"\n\
         [function.bad]\npython = \"models:NoStart\"\n",
    )
    .await;
    assert_eq!(error, "function `bad` did not start: RuntimeError: no weights here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_takes_too_long_is_ended() {
    let (error, hint) =
        fails("[function.f]\npython = \"models:Hang\"\nstart_timeout = \"500ms\"\n").await;
    assert_eq!(error, "function `f` did not start: it was not ready after 0.5 s");
    assert!(hint.contains("start_timeout"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_that_is_none_is_named() {
    let folder = folder();
    let start = |python: &str| {
        let options = Options { python: python.into(), ..options() };
        let file = system("[function.f]\npython = \"models:Square\"\n");
        gatewright_serve::Gateway::start(file, folder.path().to_owned(), options)
    };
    let error = start("no-such-python").await.expect_err("there is none");
    assert!(error.to_string().contains("cannot run no-such-python"), "{error}");
    let error = start("/bin/false").await.expect_err("it is no Python");
    assert!(error.to_string().contains("ended (exit status: 1) before it was ready"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder();
    let mut file = system("");
    file.gateway.listen = taken.local_addr().unwrap().to_string();
    let start = gatewright_serve::Gateway::start(file, folder.path().to_owned(), options());
    let error = start.await.expect_err("the port is taken");
    assert!(matches!(error, ServeError::Bind { key: "gateway.listen", .. }), "{error}");
    assert!(error.hint().unwrap().contains("another program listens there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_address_off_loopback_needs_a_token() {
    let folder = folder();
    let mut file = system("");
    file.gateway.admin = "0.0.0.0:0".to_owned();
    let start =
        |options| gatewright_serve::Gateway::start(file.clone(), folder.path().to_owned(), options);
    let error = start(options()).await.expect_err("anyone could scale");
    assert!(matches!(error, ServeError::TokenMissing { .. }), "{error}");
    let token = Some("secret".to_owned());
    start(Options { token, ..options() }).await.expect("with a token it starts").stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_can_be_interrupted() {
    let folder = folder();
    let (handle, shutdown) = Shutdown::channel();
    let file = system("[function.f]\npython = \"models:Hang\"\n");
    let running =
        tokio::spawn(gatewright_serve::run(file, folder.path().to_owned(), options(), shutdown));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    handle.stop(gatewright_serve::Stop::Drain);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), running).await;
    assert!(matches!(ended.unwrap().unwrap(), Err(ServeError::Interrupted)));
}
