//! Programs that serve HTTP behind the gateway, and what becomes of programs when it is gone.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Served, folder, options, raw, serve, serve_with, system};

/// A server of its own; says its name and port, and dies when it is asked to.
const SERVER: &str = r#"
import http.server, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        path = self.path.split("?")[0]
        if path == "/healthz":
            flag = os.environ.get("HEALTH_FLAG")
            code = 200 if not flag or os.path.exists(flag) else 503
            return self.say(code, "")
        if body == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if body.startswith("sleep "):
            time.sleep(float(body.split()[1]))
        if body.startswith("die once "):
            flag = body.split()[2]
            if not os.path.exists(flag):
                open(flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        if body == "wait for go":
            while not os.path.exists("go"):
                time.sleep(0.01)
        if body.startswith("env "):
            return self.say(200, os.environ.get(body.split()[1], "unset"))
        if body == "json":
            return self.say(200, '{"pid": %d}' % os.getpid())
        print("asked for", self.path, flush=True)
        self.say(200, f"{os.getpid()} {self.command} {self.path} {body}")
    do_GET = do_POST = answer
    def say(self, code, text):
        data = text.encode()
        self.send_response(code)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *arguments):
        pass

def end(*_):
    open("told to end", "w").close()
    os._exit(0)

signal.signal(signal.SIGTERM, end)
if len(sys.argv) > 1 and sys.argv[1] == "fail":
    sys.exit("no weights here")
port = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ["PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

const SERVED: &str = "[function.f]\nprocess = [\"python3\", \"server.py\"]\nmode = \"http\"\n";

/// A folder with `models.py` and `server.py`.
pub(crate) fn with_server() -> tempfile::TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("server.py"), SERVER).unwrap();
    folder
}

/// The processes whose working directory is this folder.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let folder = folder.canonicalize().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok());
    let here =
        |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    pids.filter(here).filter_map(Pid::from_raw).collect()
}

async fn until_gone(folder: &Path) {
    for _ in 0..1000 {
        if processes_in(folder).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still there: {:?}", processes_in(folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_serves_and_is_told_its_port() {
    let text = format!(
        "{SERVED}replicas = {{ min = 2 }}\n\
         [function.g]\nprocess = [\"python3\", \"server.py\", \"{{port}}\"]\nmode = \"http\"\n\
         [[route]]\npath = \"/r/{{*rest}}\"\nto = \"f:/x/{{rest}}\"\n"
    );
    let served = serve_with(&text, with_server(), options()).await;
    let first = served.client.call("f", "3").await;
    assert!(first.text().ends_with("POST / 3"), "{}", first.text());
    assert!(served.client.call("g", "4").await.text().ends_with("POST / 4"));
    let routed = served.client.get("/r/a/b?q=1").await;
    assert!(routed.text().ends_with("GET /x/a/b?q=1 "), "{}", routed.text());
    let folder = served.folder.path().to_owned();
    assert_eq!(processes_in(&folder).len(), 3);
    let Served { gateway, folder: _kept, .. } = served;
    gateway.stop().await;
    until_gone(&folder).await;
    assert!(folder.join("told to end").exists(), "by SIGTERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_program_dies_is_tried_again_and_the_program_comes_back() {
    let text = format!("{SERVED}replicas = {{ min = 2 }}\n");
    let served = serve_with(&text, with_server(), options()).await;
    let flag = served.file("flag").display().to_string();
    let answer = served.client.call("f", &format!("die once {flag}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    served.until("f", |f| f["availableReplicas"] == 2).await;
    assert_eq!(served.function("f").await["totals"]["retries"], 1);
    let text = served.admin().get("/metrics").await.text();
    let deaths = "gatewright_replica_deaths_total{function=\"f\",cause=\"exit\"} 1";
    assert!(text.contains(deaths), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_the_death_of_a_program_loses_no_request() {
    let text =
        format!("{SERVED}replicas = {{ min = 3 }}\nretries = {{ attempts = 10, budget = 100 }}\n");
    let served = serve_with(&text, with_server(), options()).await;
    let folder = served.folder.path().to_owned();
    let killer = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            if let Some(pid) = processes_in(&folder).first() {
                // It may have ended since.
                kill_process(*pid, Signal::KILL).unwrap_or_default();
            }
        }
    });
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let client = served.client.clone();
            tokio::spawn(async move {
                let mut good = 0;
                for call in 0..25 {
                    let body = format!("sleep 0.0{}", (caller + call) % 7);
                    let answer = client.call("f", &body).await;
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    good += 1;
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for caller in callers {
        good += caller.await.unwrap();
    }
    killer.await.unwrap();
    assert_eq!(good, 200);
    served.until("f", |f| f["availableReplicas"] == 3 && f["inFlight"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_ready_when_it_says_so_and_a_failure_to_start_is_told() {
    let folder = with_server();
    let flag = folder.path().join("healthy");
    let text = format!(
        "{SERVED}health = \"/healthz\"\nreplicas = {{ min = 0, max = 1 }}\nenv = {{ HEALTH_FLAG = \"{}\" }}\n",
        flag.display()
    );
    let served = serve_with(&text, folder, options()).await;
    let client = served.client.clone();
    let asked = tokio::spawn(async move { client.call("f", "1").await });
    served.until("f", |f| f["instances"][0]["state"] == "starting").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(served.function("f").await["instances"][0]["state"], "starting");
    std::fs::write(&flag, "").unwrap();
    assert_eq!(asked.await.unwrap().status, StatusCode::OK);

    let folder = with_server();
    let failing = SERVED.replace("server.py\"", "server.py\", \"fail\"");
    let started =
        gatewright_serve::Gateway::start(system(&failing), folder.path().to_owned(), options());
    let error = started.await.unwrap_err().to_string();
    assert!(error.contains("no weights here"), "{error}");
    let missing = SERVED.replace("python3", "no-such-program");
    let started =
        gatewright_serve::Gateway::start(system(&missing), folder.path().to_owned(), options());
    let error = started.await.unwrap_err();
    assert!(error.to_string().contains("cannot run no-such-program"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_killed_and_who_leaves_frees_the_slot() {
    let text = format!("{SERVED}max_execution = \"300ms\"\n");
    let served = serve_with(&text, with_server(), options()).await;
    let pid = |text: String| text.split(' ').next().unwrap().to_owned();
    let before = pid(served.client.call("f", "1").await.text());
    let hung = served.client.call("f", "sleep 1000").await;
    assert_eq!(hung.status, StatusCode::GATEWAY_TIMEOUT, "{}", hung.text());
    let after = pid(served.client.call("f", "1").await.text());
    assert_ne!(before, after);
    let left = served.client.call("f", "sleep 0.2");
    assert!(tokio::time::timeout(Duration::from_millis(50), left).await.is_err());
    assert_eq!(served.client.call("f", "1").await.status, StatusCode::OK);
}

/// Runs in a process of its own, started by the tests below: a gateway that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the tests below run it"]
async fn gateway_to_be_killed() {
    let Some(folder) = std::env::var_os("GATEWRIGHT_TEST_FOLDER") else { return };
    let folder = std::path::PathBuf::from(folder);
    let text = std::fs::read_to_string(folder.join("gatewright.toml")).unwrap();
    let gateway =
        gatewright_serve::Gateway::start(system(&text), folder.clone(), options()).await.unwrap();
    std::fs::write(folder.join("address.new"), gateway.address().to_string()).unwrap();
    std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
    std::future::pending::<()>().await;
}

async fn killed_gateway(text: &str, ask: &[&str], processes: usize) {
    let folder = with_server();
    std::fs::write(folder.path().join("gatewright.toml"), text).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["programs::gateway_to_be_killed", "--exact", "--ignored"])
        .env("GATEWRIGHT_TEST_FOLDER", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = loop {
        if let Ok(address) = std::fs::read_to_string(folder.path().join("address")) {
            break address.parse().unwrap();
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for name in ask {
        let head = format!(
            "POST /function/{name} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nsleep 1000"
        );
        tokio::spawn(async move { raw(address, head.as_bytes()).await });
    }
    for _ in 0..1000 {
        if processes_in(folder.path()).len() >= processes {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(processes_in(folder.path()).len() >= processes);
    child.kill().await.unwrap();
    until_gone(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_program_outlives_a_gateway_that_is_killed() {
    killed_gateway(SERVED, &["f"], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_its_group_does_not_outlive_a_gateway_that_is_killed() {
    killed_gateway("[function.f]\npython = \"models:Leaves\"\n", &[], 2).await;
    let text = "[function.f]\nprocess = [\"sh\", \"-c\", \"setsid sleep 1000 & sleep 1000\"]\n";
    killed_gateway(text, &["f"], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_of_a_request_outlives_a_gateway_that_is_killed() {
    let text = "[function.f]\nprocess = [\"sh\", \"-c\", \"sleep 1000 & sleep 1000\"]\nreplicas = { min = 2 }\n";
    // Each is a shell with two children that no signal for the shell alone would reach.
    killed_gateway(text, &["f", "f"], 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_kept_and_told() {
    let text = format!(
        "{SERVED}[function.g]\nprocess = [\"sh\", \"-c\", \"cat; echo $Http_X_Word >&2\"]\n"
    );
    let served = serve_with(&text, with_server(), options()).await;
    let admin = served.admin();
    served.client.call("f", "1").await;
    for word in ["one", "two", "three"] {
        let headers = [("x-word", word)];
        let answer = served.client.send(Method::POST, "/function/g", &headers, "x");
        assert_eq!(answer.await.unwrap().text(), "x");
    }
    let texts = |answer: String| {
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        answer
            .lines()
            .map(|text| line(text)["text"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = admin.get("/system/logs?name=g").await;
    assert_eq!(texts(all.text()), ["one", "two", "three"]);
    assert!(all.text().contains("\"name\":\"g\",\"instance\":\"g/"), "{}", all.text());
    let tail = admin.get("/system/logs?name=g&tail=2&follow=false").await;
    assert_eq!(texts(tail.text()), ["two", "three"]);
    assert_eq!(texts(admin.get("/system/logs?name=f").await.text()), ["asked for /"]);
    let late = admin.get("/system/logs?name=g&since=2100-01-01T00:00:00Z").await;
    assert_eq!((late.status, late.text().as_str()), (StatusCode::OK, ""));
    assert_eq!(admin.get("/system/logs?name=g&since=soon").await.status, StatusCode::BAD_REQUEST);
    let unknown = admin.get("/system/logs?name=h").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.json()["hint"].as_str().is_some(), "{}", unknown.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_goes_on_under_load_without_a_lost_request() {
    let text = format!("{SERVED}replicas = {{ min = 2 }}\n");
    let served = serve_with(&text, with_server(), options()).await;
    let admin = served.admin();
    let put = |body: &'static str| {
        admin.send(Method::PUT, "/system/functions", &[("content-type", "application/json")], body)
    };
    let before = processes_in(served.folder.path());
    assert_eq!(served.client.call("f", "env NEXT").await.text(), "unset");
    assert!(served.client.get("/function/f?before").await.text().contains("GET /?before"));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let client = served.client.clone();
            tokio::spawn(async move {
                for _ in 0..60 {
                    let answer = client.call("f", "sleep 0.02").await;
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                }
            })
        })
        .collect();
    let next = r#"{"service": "f", "process": ["python3", "server.py"], "mode": "http",
                   "replicas": {"min": 2}, "env": {"NEXT": "1"}, "timeout": "7s"}"#;
    assert_eq!(put(next).await.unwrap().status, StatusCode::ACCEPTED);
    for caller in callers {
        caller.await.unwrap();
    }
    for _ in 0..1000 {
        let now = processes_in(served.folder.path());
        if now.len() == 2 && now.iter().all(|pid| !before.contains(pid)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(processes_in(served.folder.path()).iter().all(|pid| !before.contains(pid)));
    assert_eq!(served.function("f").await["config"]["timeout"], "7s");
    assert_eq!(served.client.call("f", "env NEXT").await.text(), "1");
    let logs = admin.get("/system/logs?name=f").await.text();
    assert!(logs.contains("asked for /?before"), "what the old ones printed is kept: {logs}");
    let other = r#"{"service": "f", "process": ["cat"]}"#;
    assert_eq!(put(other).await.unwrap().status, StatusCode::CONFLICT);
    let none = put(r#"{"service": "ff", "process": ["cat"]}"#).await.unwrap();
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_eq!(none.json()["hint"], "did you mean `f`?");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_replicas_at_work_could_not_bear_is_refused_and_changes_nothing() {
    let text = "[function.f]\npython = \"models:Same\"\nconcurrency = 2\n\
                [function.b]\npython = \"models:Same\"\nbatch = { max_size = 2, max_wait = \"1ms\" }\n\
                [function.r]\nremote = true\n";
    let served = serve(text).await;
    let same = r#""python": "models:Same""#;
    let refused = [
        (
            "f",
            format!(r#"{same}, "concurrency": 1"#),
            "`concurrency` cannot shrink while it is served",
        ),
        ("f", same.to_owned(), "`concurrency` cannot shrink while it is served"),
        (
            "f",
            format!(r#"{same}, "batch": {{"max_size": 2, "max_wait": "1ms"}}"#),
            "`batch` cannot change while it is served",
        ),
        (
            "b",
            format!(r#"{same}, "batch": {{"max_size": 3, "max_wait": "1ms"}}"#),
            "`batch` cannot change while it is served",
        ),
        ("b", same.to_owned(), "`batch` cannot change while it is served"),
        (
            "r",
            r#""remote": true, "concurrency": 2"#.to_owned(),
            "its workers were let in for fewer requests at a time",
        ),
    ];
    for (name, table, reason) in refused {
        let before = served.function(name).await["config"].clone();
        let body = format!(r#"{{"service": "{name}", {table}}}"#);
        let json = [("content-type", "application/json")];
        let put = served.admin().send(Method::PUT, "/system/functions", &json, body).await.unwrap();
        assert_eq!(put.status, StatusCode::CONFLICT, "{}", put.text());
        let error = format!("function `{name}` cannot be updated: {reason}");
        assert_eq!(put.json()["error"], error);
        assert_eq!(put.json()["hint"], "remove it and deploy it anew");
        assert_eq!(served.function(name).await["config"], before);
    }
    assert_eq!(served.client.call("f", "1").await.text(), "1");
    assert_eq!(served.client.call("b", "[[1]]").await.text(), "[1]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_and_answered_is_held_against_its_schema() {
    let folder = with_server();
    let write =
        |name: &str, schema: &str| std::fs::write(folder.path().join(name), schema).unwrap();
    write("in.json", r#"{"type": "array", "items": {"type": "integer"}, "minItems": 1}"#);
    write("out.json", r#"{"type": "object", "required": ["pid"]}"#);
    write("small.json", r#"{"type": "integer", "maximum": 10}"#);
    let text = "[function.square]\npython = \"models:Square\"\ninput = \"in.json\"\noutput = \"small.json\"\n\
                [function.cat]\nprocess = [\"cat\"]\noutput = { schema = \"out.json\", status = 502 }\n\
                [function.f]\nprocess = [\"python3\", \"server.py\"]\nmode = \"http\"\noutput = \"out.json\"\n\
                input = { schema = \"any.json\", status = 400 }\n";
    write("any.json", r#"{"enum": ["no", 1, 2]}"#);
    let served = serve_with(text, folder, options()).await;
    let client = &served.client;
    assert_eq!(client.call("square", "[3]").await.text(), "9");
    let wrong = client.call("square", "[1, \"x\"]").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        wrong.text().contains("at /1: ") && wrong.text().contains("integer"),
        "{}",
        wrong.text()
    );
    assert_eq!(client.call("square", "[4]").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(client.call("cat", "{\"pid\": 1}").await.status, StatusCode::OK);
    let wrong = client.call("cat", "{}").await;
    assert_eq!(wrong.status, StatusCode::BAD_GATEWAY);
    assert_eq!(client.call("f", "3").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.call("f", "1").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let metrics = served.admin().get("/metrics").await.text();
    for line in [
        "gatewright_schema_mismatches_total{function=\"square\",side=\"input\"} 1",
        "gatewright_schema_mismatches_total{function=\"square\",side=\"output\"} 1",
        "gatewright_schema_mismatches_total{function=\"cat\",side=\"output\"} 1",
        "gatewright_schema_mismatches_total{function=\"f\",side=\"input\"} 1",
        "gatewright_schema_mismatches_total{function=\"f\",side=\"output\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let api = served.admin().get("/docs/openapi.json").await.json();
    let post = &api["paths"]["/function/square"]["post"];
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["items"]["type"], "integer");
    assert_eq!(served.function("square").await["config"]["input"], "in.json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_none_is_told_at_the_start() {
    let text = "[function.f]\nprocess = [\"cat\"]\ninput = \"missing.json\"\n";
    let error = crate::support::try_start(&folder(), text).await.unwrap_err().to_string();
    assert!(error.contains("function `f`: input: the schema `missing.json`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_bodies_have_a_bound_all_together() {
    let text = "[gateway]\nbody_memory = \"100KiB\"\n\
                [function.f]\nprocess = [\"sh\", \"-c\", \"cat >/dev/null; sleep 0.3\"]\nreplicas = { min = 4 }\n";
    let served = serve(text).await;
    let body = "x".repeat(60 * 1024);
    let send = || {
        let (client, body) = (served.client.clone(), body.clone());
        tokio::spawn(
            async move { client.send(Method::POST, "/function/f", &[], body).await.unwrap() },
        )
    };
    let (first, second) = (send(), send());
    let mut statuses = [first.await.unwrap().status, second.await.unwrap().status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
    assert_eq!(send().await.unwrap().status, StatusCode::OK, "the memory was given back");
}
