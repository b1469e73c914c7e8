//! The tier that gateways share, before a real Redis server that is killed, frozen, filled up and replaced by one that
//! talks nonsense.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Answer, Http, Origin, Served, folder, options, serve, serve_with};
use crate::tls::Authority;

/// A Redis server on a free port.
struct Redis {
    port: u16,
    folder: TempDir,
    server: Option<Child>,
}

impl Redis {
    async fn start() -> Self {
        let port = free_port().await;
        let mut redis = Self { port, folder: tempfile::tempdir().unwrap(), server: None };
        redis.run(&[]).await;
        redis
    }

    async fn run(&mut self, more: &[&str]) {
        let server = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", self.folder.path().to_str().unwrap(), "--requirepass", "hidden"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.server = Some(server);
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not listen");
    }

    fn signal(&self, signal: &str) {
        let pid = self.server.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// What `redis-cli` says to a command.
    fn ask(&self, command: &[&str]) -> String {
        let asked = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "-a", "hidden", "--no-auth-warning"])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8(asked.stdout).unwrap().trim().to_owned()
    }

    async fn gateway(&self, origin: &Origin, policy: &str) -> Served {
        gateway(self.port, origin, policy).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn gateway(port: u16, origin: &Origin, policy: &str) -> Served {
    // A busy machine must not look like a slow tier.
    gateway_in(port, origin, policy, "5s").await
}

/// A gateway that waits no longer than this for the tier.
async fn gateway_in(port: u16, origin: &Origin, policy: &str, deadline: &str) -> Served {
    let text = format!(
        "[cache]\nshared_deadline = \"{deadline}\"\nshared = \"redis://:hidden@127.0.0.1:{port}\"\n[function.o]\nhttp = \"http://{}\"\n\
         timeout = \"10s\"\n[[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\ncache = {policy}\n",
        origin.address
    );
    serve(&text).await
}

async fn shared(served: &Served) -> serde_json::Value {
    served.admin().get("/system/cache").await.json()["shared"].clone()
}

/// Waits until what a gateway says of the tier is as `holds` wants it.
async fn until(served: &Served, holds: impl Fn(&serde_json::Value) -> bool) {
    for _ in 0..1000 {
        if holds(&shared(served).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {}", shared(served).await);
}

async fn written(served: &Served, count: u64) {
    until(served, |tier| tier["written"].as_u64() >= Some(count)).await;
}

fn status(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.field("cache-status")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_fetched_another_has() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (one, other) = (redis.gateway(&origin, "{}").await, redis.gateway(&origin, "{}").await);
    // Both are reached under one name.
    let host = [("host", "menus")];
    let first = one.client.get_with("/x?cc=max-age=60", &host).await;
    assert!(status(&first).contains("fwd=uri-miss"), "{first:?}");
    written(&one, 1).await;
    let second = other.client.get_with("/x?cc=max-age=60", &host).await;
    assert!(status(&second).contains("hit;") && status(&second).ends_with("detail=shared"));
    assert_eq!((second.text(), second.field("x-number")), (first.text(), "1"));
    let third = other.client.get_with("/x?cc=max-age=60", &host).await;
    assert!(status(&third).contains("; hit") && !status(&third).contains("detail"), "{third:?}");
    assert_eq!(origin.requests(), 1);
    assert!(
        redis
            .ask(&["PTTL", "gatewright:entry:http://menus/x?cc=max-age=60"])
            .parse::<u64>()
            .unwrap()
            > 0
    );
    let metrics = other.admin().get("/metrics").await.text();
    let line = "gatewright_cache_tier_operations_total{tier=\"shared\",result=\"hit\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_make_one_fetch_together() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(redis.gateway(&origin, "{}").await);
    }
    // Longer than a lease lasts that is not renewed.
    let path = "/slow?cc=max-age=60&pause=4000";
    let mut clients = Vec::new();
    for number in 0..30 {
        let client = Http::new(gateways[number % 3].client.address);
        clients.push(tokio::spawn(async move { client.get_with(path, &[("host", "h")]).await }));
    }
    for client in clients {
        assert_eq!(client.await.unwrap().field("x-number"), "1");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_fetched_by_each_at_once() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (one, other) = (redis.gateway(&origin, "{}").await, redis.gateway(&origin, "{}").await);
    let path = "/own?cc=no-store";
    let host = [("host", "h")];
    assert!(status(&one.client.get_with(path, &host).await).contains("detail=no-store"));
    let remembered = format!("gatewright:pass:http://h{path}");
    while redis.ask(&["EXISTS", &remembered]) != "1" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(redis.ask(&["EXISTS", &format!("gatewright:lease:http://h{path}")]), "0");
    status(&other.client.get_with(path, &host).await);
    assert_eq!(shared(&other).await["waited"], 0);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_hands_its_fetch_over() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (one, other) = (redis.gateway(&origin, "{}").await, redis.gateway(&origin, "{}").await);
    let path = "/x?cc=max-age=60&pause=1000";
    // As if another gateway had died a moment ago with the lease.
    redis.ask(&["SET", &format!("gatewright:lease:http://h{path}"), "7", "PX", "500"]);
    let ask = |served: &Served| {
        let client = served.client.clone();
        tokio::spawn(async move { client.get_with(path, &[("host", "h")]).await })
    };
    let asked = [ask(&one), ask(&other)];
    for client in asked {
        assert_eq!(client.await.unwrap().field("x-number"), "1");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_reaches_all_memories_and_the_tier() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let policy = "{ tags = [\"menus\"] }";
    let (one, other) = (redis.gateway(&origin, policy).await, redis.gateway(&origin, policy).await);
    let host = [("host", "h")];
    for wish in ["{\"tag\":\"menus\"}", "{\"url\":\"/x?cc=max-age=60\"}", "{\"prefix\":\"/\"}"] {
        let before = origin.requests();
        let wrote = shared(&one).await["written"].as_u64().unwrap();
        let path = "/x?cc=max-age=60";
        one.client.get_with(path, &host).await;
        assert_eq!(origin.requests(), before + 1);
        written(&one, wrote + 1).await;
        other.client.get_with(path, &host).await;
        assert_eq!(origin.requests(), before + 1);
        let json = [("content-type", "application/json")];
        let purged =
            one.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
        assert_eq!(purged.json(), serde_json::json!({ "purged": 1, "told": true }));
        let numbers = async || other.admin().get("/system/cache").await.json();
        while numbers().await["keys"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The tier still has it, but nobody takes it.
        let fresh = redis.gateway(&origin, policy).await;
        let asked = fresh.client.get_with(path, &host).await;
        assert!(status(&asked).contains("fwd=uri-miss"), "{asked:?}");
        written(&fresh, 1).await;
        one.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_while_the_tier_is_down_is_told_later() {
    let (mut redis, origin) = (Redis::start().await, Origin::start().await);
    redis.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    let served = redis.gateway(&origin, "{}").await;
    let (path, host) = ("/x?cc=max-age=60", [("host", "h")]);
    served.client.get_with(path, &host).await;
    written(&served, 1).await;
    redis.kill();
    until(&served, |tier| tier["up"] == false).await;
    let json = [("content-type", "application/json")];
    let wish = "{\"url\":\"http://h/x?cc=max-age=60\"}";
    let purged =
        served.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
    assert_eq!(purged.json(), serde_json::json!({ "purged": 1, "told": false }));
    redis.run(&["--appendonly", "yes"]).await;
    until(&served, |tier| tier["up"] == true).await;
    let other = redis.gateway(&origin, "{}").await;
    let asked = other.client.get_with(path, &host).await;
    assert!(status(&asked).contains("fwd=uri-miss"), "it came back from the dead: {asked:?}");
}

/// Asks on and on, hot and cold pages alternately, while something happens to the tier; no request may fail.
async fn under_load(served: &Served, mischief: impl AsyncFnOnce()) {
    let client = Http::new(served.client.address);
    let hot = "/hot?cc=max-age=600";
    status(&client.get(hot).await);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut loads = Vec::new();
    for load in 0..4 {
        let (client, stopped) = (client.clone(), stopped.clone());
        loads.push(tokio::spawn(async move {
            let mut number = 0;
            while !*stopped.borrow() || number < 5 {
                number += 1;
                let cold = client.get(&format!("/cold/{load}/{number}?cc=max-age=600")).await;
                assert!(status(&cold).contains("fwd=uri-miss"), "{cold:?}");
                let hit = client.get(hot).await;
                assert!(
                    status(&hit).contains("; hit") && !status(&hit).contains("detail"),
                    "{hit:?}"
                );
            }
        }));
    }
    mischief().await;
    stop.send(true).unwrap();
    for load in loads {
        load.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_is_killed_fails_no_request_and_is_used_again() {
    let (mut redis, origin) = (Redis::start().await, Origin::start().await);
    let served = gateway_in(redis.port, &origin, "{}", "20ms").await;
    until(&served, |tier| tier["up"] == true).await;
    under_load(&served, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        redis.kill();
        until(&served, |tier| tier["up"] == false).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.run(&[]).await;
        let before = shared(&served).await["written"].as_u64().unwrap();
        until(&served, |tier| tier["up"] == true && tier["written"].as_u64() > Some(before)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_is_frozen_fails_no_request_and_is_used_again() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let served = gateway_in(redis.port, &origin, "{}", "20ms").await;
    until(&served, |tier| tier["up"] == true).await;
    under_load(&served, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        redis.signal("-STOP");
        until(&served, |tier| tier["up"] == false).await;
        assert!(shared(&served).await["failed"].as_u64() >= Some(3));
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis.signal("-CONT");
        let before = shared(&served).await["written"].as_u64().unwrap();
        until(&served, |tier| tier["up"] == true && tier["written"].as_u64() > Some(before)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_is_full_fails_no_request_and_is_read_all_the_same() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (served, other) = (redis.gateway(&origin, "{}").await, redis.gateway(&origin, "{}").await);
    let host = [("host", "h")];
    served.client.get_with("/kept?cc=max-age=600", &host).await;
    written(&served, 1).await;
    under_load(&served, async || {
        redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        redis.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
        until(&served, |tier| tier["refused"].as_u64() > Some(5)).await;
        assert_eq!(shared(&served).await["up"], true, "it can be read");
        let read = other.client.get_with("/kept?cc=max-age=600", &host).await;
        assert!(status(&read).ends_with("detail=shared"), "{read:?}");
        // Memories hear of a purge that the tier has no room for.
        let wish = "{\"url\":\"/kept?cc=max-age=600\"}";
        let json = [("content-type", "application/json")];
        let told =
            served.admin().send(Method::POST, "/system/cache/purge", &json, wish).await.unwrap();
        assert_eq!(told.json()["told"], false);
        let gone = async || other.admin().get("/system/cache").await.json()["purged"] == 1;
        while !gone().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked = other.client.get_with("/kept?cc=max-age=600", &host).await;
        assert!(status(&asked).contains("fwd=uri-miss"), "{asked:?}");
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        let before = shared(&served).await["written"].as_u64().unwrap();
        until(&served, |tier| tier["written"].as_u64() > Some(before)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_talks_nonsense_is_left_alone() {
    let origin = Origin::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Polite until the connection is taken up; then it answers every question with noise.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if stream.write_all(b"+PONG\r\n\x00\xff*3\r\n$-7\r\nnonsense").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let served = gateway(port, &origin, "{}").await;
    under_load(&served, async || {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert_eq!(shared(&served).await["written"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_another_version_or_torn_ones_are_not_served() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (one, host) = (redis.gateway(&origin, "{}").await, [("host", "h")]);
    for (path, spoil) in [("/v?cc=max-age=60", 3), ("/t?cc=max-age=60", 100)] {
        one.client.get_with(path, &host).await;
        let key = format!("gatewright:entry:http://h{path}");
        while redis.ask(&["EXISTS", &key]) != "1" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let script = "local f = redis.call('HGETALL', KEYS[1]) for i = 1, #f, 2 do if f[i] ~= 'fence' then \
             local v, p = f[i+1], tonumber(ARGV[1]) \
             redis.call('HSET', KEYS[1], f[i], v:sub(1, p) .. string.char(v:byte(p+1) + 1) .. v:sub(p+2)) end end";
        redis.ask(&["EVAL", script, "1", &key, &spoil.to_string()]);
        let other = redis.gateway(&origin, "{}").await;
        let asked = other.client.get_with(path, &host).await;
        assert!(status(&asked).contains("fwd=uri-miss"), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_gateway_is_warm() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let (path, host) = ("/x?cc=max-age=60", [("host", "h")]);
    let served = redis.gateway(&origin, "{}").await;
    served.client.get_with(path, &host).await;
    served.gateway.stop().await;
    let served = redis.gateway(&origin, "{}").await;
    let asked = served.client.get_with(path, &host).await;
    assert!(status(&asked).ends_with("detail=shared"), "{asked:?}");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_request_for_what_is_stored_alone_are_answered_from_the_tier() {
    let (redis, origin) = (Redis::start().await, Origin::start().await);
    let one = redis.gateway(&origin, "{}").await;
    for path in ["/a?cc=max-age=60", "/b?cc=max-age=60"] {
        one.client.get_with(path, &[("host", "h")]).await;
    }
    written(&one, 2).await;
    let other = redis.gateway(&origin, "{}").await;
    let head =
        other.client.send(Method::HEAD, "/a?cc=max-age=60", &[("host", "h")], "").await.unwrap();
    assert!(status(&head).ends_with("detail=shared") && head.body.is_empty(), "{head:?}");
    let only = [("host", "h"), ("cache-control", "only-if-cached")];
    let stored = other.client.get_with("/b?cc=max-age=60", &only).await;
    assert!(status(&stored).ends_with("detail=shared") && stored.status == 200, "{stored:?}");
    assert_eq!(other.client.get_with("/c?cc=max-age=60", &only).await.status, 504);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_a_server_whose_certificate_is_trusted_and_to_no_other() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let folder = folder();
    authority.issue(folder.path(), "own");
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    std::fs::write(folder.path().join("other.pem"), Authority::new().root()).unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (plain, secure) = (free_port().await, free_port().await);
    let mut redis = Redis { port: plain, folder: tempfile::tempdir().unwrap(), server: None };
    redis
        .run(&[
            "--tls-port",
            &secure.to_string(),
            "--tls-cert-file",
            &file("own.pem"),
            "--tls-key-file",
            &file("own.key"),
            "--tls-ca-cert-file",
            &file("root.pem"),
        ])
        .await;
    // With the gateway's own certificate, which this server asks for.
    let text = |tls: &str| {
        format!(
            "[cache]\nshared_deadline = \"5s\"\nshared = \"rediss://:hidden@localhost:{secure}\"\n\
             shared_tls = {{ {tls} }}\n[function.o]\nhttp = \"http://{}\"\n[[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\n\
             cache = {{}}\n",
            origin.address
        )
    };
    let copy = |names: &[&str]| {
        let copy = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    };
    let files = ["own.pem", "own.key", "root.pem", "other.pem"];
    let trusting = text("ca = \"root.pem\", certificate = \"own.pem\", key = \"own.key\"");
    let one = serve_with(&trusting, copy(&files), options()).await;
    one.client.get_with("/a?cc=max-age=60", &[("host", "h")]).await;
    written(&one, 1).await;
    let other = serve_with(&trusting, copy(&files), options()).await;
    let answer = other.client.get_with("/a?cc=max-age=60", &[("host", "h")]).await;
    assert!(status(&answer).ends_with("detail=shared"), "{answer:?}");
    // A purge is heard of there, too.
    let json = [("content-type", "application/json")];
    one.admin()
        .send(Method::POST, "/system/cache/purge", &json, "{\"prefix\":\"/\"}")
        .await
        .unwrap();
    for _ in 0..500 {
        let answer = other.client.get_with("/a?cc=max-age=60", &[("host", "h")]).await;
        if !status(&answer).contains("; hit") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = origin.requests();
    assert_eq!(asked, 2);

    let wary = text("ca = \"other.pem\", certificate = \"own.pem\", key = \"own.key\"");
    let wary = serve_with(&wary, copy(&files), options()).await;
    assert_eq!(shared(&wary).await["up"], false);
    assert_eq!(wary.client.get_with("/a?cc=max-age=60", &[("host", "h")]).await.status, 200);
    assert_eq!(origin.requests(), 3, "it goes on without");
}
