//! `examples/lunch` from one end to the other: the stand-in, the relay, and those who are hungry.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command::{gatewright, python, workspace};

/// The stand-in and a relay before it; both end with the test.
struct Lunch {
    upstream: Child,
    upstream_port: u16,
    relay: Option<Child>,
    folder: tempfile::TempDir,
    address: String,
    admin: String,
}

impl Lunch {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(workspace().join("examples/lunch")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let upstream = Command::new(python())
            .arg("upstream.py")
            .args(["--port", &port.to_string(), "--latency", "0.05"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the stand-in does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (address, admin) = (String::new(), String::new());
        let mut lunch = Self { upstream, upstream_port: port, relay: None, folder, address, admin };
        lunch.serve();
        lunch
    }

    /// Starts the relay, with a disk behind its memory.
    fn serve(&mut self) {
        let settings = [
            "gateway.listen=127.0.0.1:0".to_owned(),
            "gateway.admin=127.0.0.1:0".to_owned(),
            format!("function.menus.http=http://127.0.0.1:{}", self.upstream_port),
            "cache.disk.path=kept".to_owned(),
            "cache.disk.size=16MiB".to_owned(),
        ];
        let mut relay = gatewright(self.folder.path())
            .args(["serve", "--log-format", "json"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(relay.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serving = lines.find(|line| line.contains("\"serving\""));
        let line: serde_json::Value = serde_json::from_str(&serving.expect("it serves")).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        self.relay = Some(relay);
        self.address = line["address"].as_str().unwrap().to_owned();
        self.admin = line["admin"].as_str().unwrap().to_owned();
    }

    fn kill(&mut self) {
        let mut relay = self.relay.take().unwrap();
        relay.kill().unwrap();
        relay.wait().unwrap();
    }

    /// The command, with these words and this answer to its question.
    fn lunch(&self, words: &[&str], answer: &str) -> Output {
        let mut command = Command::new(python())
            .arg("lunch.py")
            .args(words)
            .current_dir(self.folder.path())
            .env("LUNCH_URL", format!("http://{}", self.address))
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        command.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        command.wait_with_output().unwrap()
    }

    /// The whole answer to a GET, head and body.
    fn get(&self, address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: lunch\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn asked(&self) -> u64 {
        let answer = self.get(&format!("127.0.0.1:{}", self.upstream_port), "/count");
        let count = answer.rsplit("\"requests\": ").next().unwrap();
        count.trim_end_matches('}').parse().unwrap()
    }

    /// Asks the relay until its disk has what it stored.
    fn until_written(&self, files: u64) {
        let began = Instant::now();
        loop {
            let answer = self.get(&self.admin, "/system/cache");
            let numbers: serde_json::Value =
                serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            if numbers["disk"]["keys"].as_u64() >= Some(files) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{numbers}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lunch {
    fn drop(&mut self) {
        for child in [Some(&mut self.upstream), self.relay.as_mut()].into_iter().flatten() {
            // One that has ended is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn lunch_is_chosen_by_number_and_by_id() {
    let lunch = Lunch::start();
    let chosen = lunch.lunch(&[], "6\n");
    let (out, told) = (text(&chosen.stdout), text(&chosen.stderr));
    assert!(chosen.status.success(), "{told}");
    assert!(out.contains(" 0) Svarta Räfven Solna\n") && out.contains("10) Tallriket Uppsala\n"));
    assert!(out.contains("Choose a restaurant [number]: \nBikupan, Uppsala\n"), "{out}");
    assert!(out.ends_with("ID:         bikupan\n"), "{out}");
    assert!(told.contains("Looking for restaurants [Success]\nLooking for the menu [Success]"));
    let menu = &out[out.find("\nBikupan").unwrap()..];
    let by_id = lunch.lunch(&["bikupan"], "");
    assert_eq!(text(&by_id.stdout), menu);
    assert_eq!(lunch.asked(), 2, "the list and one menu");

    for (words, answer, tip) in [
        (&["nowhere"][..], "", "tip: call it without an id"),
        (&[], "77\n", "tip: choose from 0 to 10"),
    ] {
        let failed = lunch.lunch(words, answer);
        assert_eq!(failed.status.code(), Some(1));
        assert!(text(&failed.stderr).contains(tip), "{}", text(&failed.stderr));
    }
    assert!(text(&lunch.lunch(&["nowhere"], "").stderr).contains("[Failed]"));

    let line = Command::new("sh")
        .args(["lunch.sh", "bikupan"])
        .current_dir(lunch.folder.path())
        .env("LUNCH_URL", format!("http://{}", lunch.address))
        .output()
        .unwrap();
    assert!(text(&line.stdout).starts_with("Bikupan\n- "), "{line:?}");
}

#[test]
fn what_is_no_menu_is_not_found_and_an_empty_one_is_said() {
    let mut lunch = Lunch::start();
    let odd = "\nimport upstream\n\ndef detailed(*restaurant):\n    if restaurant[1] == 'glada':\n        \
               return {'title': 1}\n    return {'location': 'l', 'map_url': 'm', 'menu': [], 'title': 't', \
               'url': 'u'}\n\nupstream.detailed = detailed\nupstream.main()\n";
    lunch.upstream.kill().unwrap();
    lunch.upstream.wait().unwrap();
    lunch.upstream = Command::new(python())
        .args(["-c", odd, "--port", &lunch.upstream_port.to_string()])
        .current_dir(lunch.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", lunch.upstream_port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = lunch.get(&lunch.address, "/restaurant/glada");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(lunch.lunch(&["glada"], "").status.code(), Some(1));
    let empty = lunch.lunch(&["haga"], "");
    assert!(text(&empty.stdout).contains("No menu published for today"), "{empty:?}");
}

#[test]
fn a_relay_that_was_killed_has_its_pages_again() {
    let mut lunch = Lunch::start();
    let ask = |lunch: &Lunch, path: &str| {
        let answer = lunch.get(&lunch.address, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };
    for path in
        ["/restaurant", "/restaurant/hubben", "/relay_anything/version", "/docs", "/openapi.json"]
    {
        ask(&lunch, path);
    }
    lunch.until_written(5);
    lunch.kill();
    lunch.upstream.kill().unwrap();
    lunch.serve();
    for path in
        ["/restaurant", "/restaurant/hubben", "/relay_anything/version", "/docs", "/openapi.json"]
    {
        let answer = ask(&lunch, path);
        assert!(answer.contains("detail=disk"), "{answer}");
    }
}

#[test]
fn the_cache_is_looked_at_and_purged_by_commands() {
    let lunch = Lunch::start();
    for path in ["/restaurant", "/restaurant/hubben", "/restaurant/haga"] {
        lunch.get(&lunch.address, path);
    }
    let cache = |words: &[&str]| {
        let output = gatewright(lunch.folder.path())
            .arg("cache")
            .args(words)
            .args(["--admin", &format!("http://{}", lunch.admin)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout) + &text(&output.stderr)
    };
    let listed = cache(&["list", "--prefix", "/restaurant/"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains("http://lunch/restaurant/haga  1 stored, ttl 35"), "{listed}");
    let got = cache(&["get", "/restaurant/haga"]);
    assert!(got.contains("status 200") && got.contains("content-type: application/json"), "{got}");
    let json = cache(&["get", "http://lunch/restaurant/haga", "--format", "json"]);
    assert!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()[0]["responses"][0]["ttl"]
            .is_number()
    );
    assert_eq!(cache(&["purge", "--url", "/restaurant/haga"]), "responses purged: 1\n");
    assert_eq!(cache(&["purge", "--prefix", "/restaurant", "--soft"]), "responses purged: 2\n");
    let listed = cache(&["list"]);
    assert!(listed.contains("http://lunch/restaurant/hubben  1 stored, ttl 0"), "{listed}");
    let stats = cache(&["stats"]);
    assert!(
        stats.contains("keys           2\n") && stats.contains("disk keys      3\n"),
        "{stats}"
    );
}
