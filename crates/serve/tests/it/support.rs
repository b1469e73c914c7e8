//! A gateway with real workers, a client, and a stand-in for an upstream.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use gatewright_control::config::{Override, SystemFile};
use gatewright_serve::{Gateway, Options, ServeError};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Classes that workers serve.
const MODELS: &str = r#"
import os, signal, subprocess, sys, time

class Square:
    def __init__(self, pause=0.0):
        self.pause = pause
    def __call__(self, x):
        time.sleep(self.pause)
        return x ** 2

class Echo:
    def __init__(self, *args, **kwargs):
        self.made = [list(args), kwargs]
    def __call__(self, *args, **kwargs):
        return {"made": self.made, "args": list(args), "kwargs": kwargs}

class Same:
    def __call__(self, x=None):
        return x

class Kind:
    def __call__(self, x):
        return type(x).__name__

class Odd:
    def __call__(self, what):
        if what == "nan":
            return {"a": [1, float("nan")]}
        if what == "object":
            return object()
        if what == "raise":
            raise ValueError("not this one")
        if what == "big":
            return 10 ** 20
        if what == "base":
            raise BaseException("no ordinary one")
        return what

class Pid:
    def __call__(self):
        return os.getpid()

class Kill:
    """Dies in its first call, once: the file says that it has."""
    def __init__(self, flag):
        self.flag = flag
    def __call__(self):
        if not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

class Suicide:
    def __call__(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Pause:
    """Says in a file when it begins and ends."""
    def __init__(self, log):
        self.log = log
    def note(self, what):
        with open(self.log, "a") as log:
            log.write(what + "\n")
    def __call__(self, name, seconds):
        self.note("begin " + name)
        time.sleep(seconds)
        self.note("end " + name)
        return name

class Tokens:
    def __call__(self, count, fail=False):
        for number in range(count):
            yield f"t{number} "
        if fail:
            raise ValueError("broken off")

class Forks:
    def __init__(self):
        self.child = os.fork()
        if self.child == 0:
            time.sleep(1000)
            os._exit(0)
    def __call__(self, die=False):
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.child

class Leaves:
    def __init__(self):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    def __call__(self):
        return "here"

class Ends:
    def __call__(self):
        return "here"
    def teardown(self):
        time.sleep(0.5)
        open("ended", "w").close()

class Blocks:
    def __call__(self, count):
        for _ in range(count):
            yield b"x" * 65536

class Flaky:
    def __init__(self):
        self.calls = 0
    def __call__(self):
        self.calls += 1
        if self.calls == 1:
            error = RuntimeError("busy")
            error.retryable = True
            raise error
        return self.calls

class HalfKill:
    def __call__(self):
        yield "half"
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

class Gate:
    """Answers when there is a file of this name."""
    def __call__(self, name):
        while not os.path.exists(name):
            time.sleep(0.01)
        return name

class NoStart:
    def __init__(self):
        raise RuntimeError("no weights here")

class Hang:
    def __init__(self):
        time.sleep(1000)
"#;

/// A gateway and the folder of its system file.
pub(crate) struct Served {
    pub(crate) gateway: Gateway,
    pub(crate) folder: TempDir,
    pub(crate) client: Http,
}

/// A client that keeps its connections.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) address: SocketAddr,
}

/// An answer, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) fn python() -> PathBuf {
    let own = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/python"));
    let python = std::env::var_os("GATEWRIGHT_PYTHON").map_or_else(own, PathBuf::from);
    assert!(python.exists(), "{} is missing: run `make venv`", python.display());
    python
}

/// A folder with `models.py`.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("models.py"), MODELS).unwrap();
    folder
}

pub(crate) fn options() -> Options {
    Options { python: python(), grace: Duration::from_secs(3), ..Options::default() }
}

/// The system that `text` describes, on free ports.
pub(crate) fn system(text: &str) -> SystemFile {
    let set = |key: &str| Override::new(key, "127.0.0.1:0", "test");
    SystemFile::parse(text, &[set("gateway.listen"), set("gateway.admin")]).unwrap()
}

pub(crate) async fn try_start(folder: &TempDir, text: &str) -> Result<Gateway, ServeError> {
    Gateway::start(system(text), folder.path().to_owned(), options()).await
}

/// Serves `text`.
pub(crate) async fn serve(text: &str) -> Served {
    serve_with(text, folder(), options()).await
}

pub(crate) async fn serve_with(text: &str, folder: TempDir, options: Options) -> Served {
    let started = Gateway::start(system(text), folder.path().to_owned(), options).await;
    let gateway = started.unwrap();
    let client = Http::new(gateway.address());
    Served { gateway, folder, client }
}

impl Served {
    pub(crate) fn admin(&self) -> Http {
        Http::new(self.gateway.admin_address())
    }

    /// What the admin API says of a function.
    pub(crate) async fn function(&self, name: &str) -> serde_json::Value {
        self.admin().get(&format!("/system/function/{name}")).await.json()
    }

    /// Waits until what the admin API says of a function is as `holds` wants it.
    pub(crate) async fn until(&self, name: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        for _ in 0..2000 {
            if holds(&self.function(name).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came: {}", self.function(name).await);
    }

    /// A file in the folder of the system.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// A client that speaks HTTP/2 from the first byte.
    pub(crate) fn http2(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, address }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request =
            http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into()))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.unwrap()
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, "").await.unwrap()
    }

    /// Calls a function with JSON.
    pub(crate) async fn call(&self, name: &str, json: &str) -> Answer {
        let json_type = [("content-type", "application/json")];
        let path = format!("/function/{name}");
        self.send(Method::POST, &path, &json_type, json.to_owned()).await.unwrap()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends these bytes on a connection of its own and returns all that comes back until it is closed.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
    let _length = read.await.expect("the connection is closed").unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A stand-in for an upstream.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<OriginState>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct OriginState {
    requests: AtomicU64,
}

impl Origin {
    /// What it answers with is said by the query: `pause` in ms, `status`, `cc` (Cache-Control), `size`, and other fields.
    pub(crate) async fn start() -> Self {
        let state = Arc::<OriginState>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(origin).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, state, server }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn origin(State(state): State<Arc<OriginState>>, request: Request) -> Response {
    let number = state.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let value = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(str::to_owned)
    };
    if let Some(pause) = value("pause") {
        tokio::time::sleep(Duration::from_millis(pause.parse().unwrap())).await;
    }
    let body = body.collect().await.unwrap().to_bytes();
    let mut response = Response::builder()
        .status(value("status").map_or(StatusCode::OK, |status| status.parse().unwrap()));
    let fields = [
        ("cc", "cache-control"),
        ("vary", "vary"),
        ("age", "age"),
        ("type", "content-type"),
        ("etag", "etag"),
        ("coding", "content-encoding"),
    ];
    for (name, field) in fields {
        if let Some(value) = value(name) {
            let value = value.replace('+', " ").replace("%22", "\"");
            response = response.header(field, value);
        }
    }
    if let Some(cookie) = value("cookie") {
        response = response.header("set-cookie", cookie);
    }
    response =
        response.header("connection", "x-own").header("x-own", "1").header("x-number", number);
    let text = match value("size") {
        None if query.contains("show") => format!(
            "auth={} key={}",
            header(&parts.headers, "authorization"),
            header(&parts.headers, "x-api-key"),
        ),
        Some(size) => "x".repeat(size.parse().unwrap()),
        None => format!(
            "{} {} body={} host={} via={} xff={} own={}",
            parts.method,
            parts.uri,
            String::from_utf8_lossy(&body),
            header(&parts.headers, "host"),
            header(&parts.headers, "via"),
            header(&parts.headers, "x-forwarded-for"),
            header(&parts.headers, "x-own"),
        ),
    };
    response.body(Body::from(text)).unwrap()
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}
