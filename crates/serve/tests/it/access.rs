//! API keys, rate limits, and proxies that are believed.

use http::{Method, StatusCode};

use crate::support::{Answer, Http, Origin, Served, folder, options, serve, serve_with};

/// A gateway before `origin`; `function` and `route` are more keys of those tables.
async fn guarded(origin: &Origin, gateway: &str, function: &str, route: &str) -> Served {
    let folder = folder();
    std::fs::write(folder.path().join("one.key"), "secret-one\n").unwrap();
    std::fs::write(folder.path().join("two.key"), "secret-two\n").unwrap();
    let mut options = options();
    options.records = Some(folder.path().join("records.jsonl"));
    let text = format!(
        "[gateway]\n{gateway}\n[key.one]\nsecret = \"file:one.key\"\n[key.two]\nsecret = \"file:two.key\"\n\
         [function.o]\nhttp = \"http://{}\"\n{function}\n\
         [[route]]\npath = \"/cached/{{*rest}}\"\nto = \"o\"\ncache = {{ ttl = \"1h\" }}\n{route}\n\
         [[route]]\npath = \"/open/{{*rest}}\"\nto = \"o\"\nkeys = []\n",
        origin.address
    );
    serve_with(&text, folder, options).await
}

async fn status(client: &Http, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    client.get_with(path, headers).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_there_is_no_answer() {
    let origin = Origin::start().await;
    let served = guarded(&origin, "keys = [\"*\"]", "", "keys = [\"one\"]").await;
    let client = &served.client;
    let refused = client.get("/cached/a").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.field("www-authenticate"), "Bearer realm=\"gatewright\"");
    let wrong = client.get_with("/cached/a", &[("authorization", "Bearer secret-")]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.field("www-authenticate").contains("invalid_token"));
    let other = client.get_with("/cached/a", &[("x-api-key", "secret-two")]).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    assert!(other.text().contains("`two`") && !other.text().contains("secret"), "{}", other.text());
    assert_eq!(status(client, "/function/o", &[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(origin.requests(), 0, "none of them came through");

    assert_eq!(status(client, "/cached/a", &[("x-api-key", "secret-one")]).await, StatusCode::OK);
    assert_eq!(status(client, "/function/o", &[("x-api-key", "secret-two")]).await, StatusCode::OK);
    assert_eq!(status(client, "/open/a", &[]).await, StatusCode::OK);
    // A hit is for those alone who have a key.
    assert_eq!(status(client, "/cached/a", &[]).await, StatusCode::UNAUTHORIZED);
    let admin = served.admin().call("o", "").await;
    assert_eq!(admin.status, StatusCode::OK, "whoever may operate it needs no key");

    let metrics = served.admin().get("/metrics").await.text();
    for line in [
        "gatewright_key_requests_total{key=\"one\"} 1",
        "gatewright_key_requests_total{key=\"two\"} 2",
        "gatewright_requests_rejected_total{function=\"o\",reason=\"key\"} 5",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let Served { gateway, folder, .. } = served;
    gateway.stop().await;
    let records = std::fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    assert!(records.contains("\"class\":\"one\"") && !records.contains("secret"), "{records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_gateway_is_not_the_upstreams_and_its_answers_are_shared() {
    let origin = Origin::start().await;
    let served = guarded(&origin, "keys = [\"*\"]", "", "").await;
    let client = &served.client;
    for key in ["Bearer secret-one", "Bearer secret-two"] {
        assert_eq!(status(client, "/cached/a", &[("authorization", key)]).await, StatusCode::OK);
    }
    assert_eq!(origin.requests(), 1, "two clients share what is stored");
    // What is left of Authorization is the upstream's, and means what RFC 9111 section 3.5 says.
    for user in ["Basic dTE6", "Basic dTI6"] {
        let headers = [("x-api-key", "secret-one"), ("authorization", user)];
        let answer = client.get_with("/cached/b", &headers).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(origin.requests(), 3, "for one user alone");
    let headers = [("x-api-key", "secret-one"), ("authorization", "Basic dTE6")];
    for _ in 0..2 {
        client.get_with("/cached/c?cc=public,max-age=60", &headers).await;
    }
    assert_eq!(origin.requests(), 4, "unless the upstream says otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_upstreams_see_keys_is_said() {
    for (gateway, seen) in
        [("", "auth= key="), ("pass_keys = true", "auth=Bearer secret-two key=secret-one")]
    {
        let origin = Origin::start().await;
        let served = guarded(&origin, gateway, "", "").await;
        let headers = [("x-api-key", "secret-one"), ("authorization", "Bearer secret-two")];
        let text = served.client.get_with("/open/a?show", &headers).await.text();
        assert!(text.ends_with(seen), "{text}");
    }
}

fn fields(answer: &Answer) -> [&str; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| answer.field(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_is_429_with_when_to_come_back() {
    let origin = Origin::start().await;
    let route = "limit = { requests = 2, every = \"1h\" }";
    let served =
        guarded(&origin, "", "limit = { requests = 100, every = \"1h\", by = \"all\" }", route)
            .await;
    let client = &served.client;
    let first = client.get("/cached/a").await;
    assert_eq!(first.status, StatusCode::OK);
    let policy = "\"route\";q=2;w=3600, \"function\";q=100;w=3600";
    assert_eq!(fields(&first), [policy, "\"route\";r=1;t=1800, \"function\";r=99;t=36", ""]);
    let hit = client.get("/cached/a").await;
    assert!(hit.field("cache-status").contains("hit"));
    assert!(hit.field("ratelimit").starts_with("\"route\";r=0;t="), "hits count too");
    let refused = client.get("/cached/a").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        refused.field("ratelimit").ends_with("\"function\";r=98;t=72"),
        "it spent nothing of it"
    );
    let wait: u64 = refused.field("retry-after").parse().unwrap();
    assert!((1_700..=1_800).contains(&wait), "{wait}");
    // It is the route's: the function is asked under its name all the same.
    assert_eq!(status(client, "/function/o", &[]).await, StatusCode::OK);
    assert_eq!(origin.requests(), 2);
    let metrics = served.admin().get("/metrics").await.text();
    assert!(
        metrics.contains("requests_rejected_total{function=\"o\",reason=\"rate\"} 1"),
        "{metrics}"
    );
    let Served { gateway, folder, .. } = served;
    gateway.stop().await;
    let records = std::fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    let shed = records.lines().filter(|line| line.contains("\"status\":\"shed\""));
    let shed: Vec<_> = shed.collect();
    assert_eq!(shed.len(), 1);
    assert!(shed[0].contains("\"code\":429"), "{}", shed[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_headers_have_limits_of_their_own() {
    let origin = Origin::start().await;
    let limit = |by: &str| format!("limit = {{ requests = 1, every = \"1h\", by = \"{by}\" }}");
    let ok = StatusCode::OK;
    let many = StatusCode::TOO_MANY_REQUESTS;

    let served = guarded(&origin, "", &limit("key"), "").await;
    let mut said = Vec::new();
    for key in ["secret-one", "secret-one", "secret-two", "unknown", "unknown"] {
        said.push(status(&served.client, "/open/a", &[("x-api-key", key)]).await);
    }
    assert_eq!(said, [ok, many, ok, ok, many]);

    let served = guarded(&origin, "", &limit("header:X-Tenant"), "").await;
    let mut said = Vec::new();
    for tenant in ["a", "a", "b"] {
        said.push(status(&served.client, "/open/a", &[("x-tenant", tenant)]).await);
    }
    assert_eq!(said, [ok, many, ok]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_made_up_is_no_way_around_a_limit() {
    let origin = Origin::start().await;
    let limit = "limit = { requests = 1, every = \"1h\" }";
    for (gateway, allowed) in [("", 1), ("trusted_proxies = [\"127.0.0.1\"]", 3)] {
        let served = guarded(&origin, gateway, limit, "").await;
        let mut let_through = 0;
        for address in ["1.1.1.1", "1.1.1.2", "1.1.1.3", "6.6.6.6, 1.1.1.3"] {
            let answer = served.client.get_with("/open/a", &[("x-forwarded-for", address)]).await;
            let_through += u32::from(answer.status == StatusCode::OK);
        }
        assert_eq!(let_through, allowed, "{gateway}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_told_of_hops_that_are_believed() {
    let origin = Origin::start().await;
    let text = |served: Served| async move {
        let served = &served;
        let headers = [("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-proto", "https")];
        served.client.send(Method::POST, "/open/a", &headers, "").await.unwrap().text()
    };
    let told = text(guarded(&origin, "", "", "").await).await;
    assert!(told.contains(" xff=127.0.0.1 "), "{told}");
    let told = text(guarded(&origin, "trusted_proxies = [\"127.0.0.0/8\"]", "", "").await).await;
    assert!(told.contains(" xff=6.6.6.6, 1.2.3.4, 127.0.0.1 "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_comes_later_may_ask_for_keys() {
    let origin = Origin::start().await;
    let served = guarded(&origin, "", "", "").await;
    let deploy = |keys: &str| {
        let json = format!(
            "{{\"service\": \"late\", \"http\": \"http://{}\", \"keys\": [\"{keys}\"]}}",
            origin.address
        );
        let admin = served.admin();
        async move {
            let headers = [("content-type", "application/json")];
            admin.send(Method::POST, "/system/functions", &headers, json).await.unwrap()
        }
    };
    assert_eq!(deploy("three").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(deploy("two").await.status, StatusCode::ACCEPTED);
    served.until("late", |function| function["availableReplicas"] == 1).await;
    assert_eq!(status(&served.client, "/function/late", &[]).await, StatusCode::UNAUTHORIZED);
    let key = [("x-api-key", "secret-two")];
    assert_eq!(status(&served.client, "/function/late", &key).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_asked_for_nothing_is_taken() {
    let origin = Origin::start().await;
    let text = format!("[function.o]\nhttp = \"http://{}\"\n", origin.address);
    let served = serve(&text).await;
    let headers = [("x-api-key", "theirs"), ("authorization", "Bearer theirs")];
    let answer = served.client.get_with("/function/o?show", &headers).await;
    assert!(answer.text().ends_with("auth=Bearer theirs key=theirs"), "{}", answer.text());
    assert_eq!(fields(&answer), ["", "", ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_files_are_read_anew() {
    let origin = Origin::start().await;
    let folder = folder();
    let files = ["one.key", "token"].map(|name| folder.path().join(name));
    files.iter().for_each(|file| std::fs::write(file, "old").unwrap());
    let mut options = options();
    (options.token, options.token_file) = (Some("old".to_owned()), Some(files[1].clone()));
    let text = format!(
        "[gateway]\nkeys = [\"*\"]\n[key.one]\nsecret = \"file:one.key\"\n[function.o]\nhttp = \"http://{}\"\n",
        origin.address
    );
    let served = serve_with(&text, folder, options).await;
    let (client, admin) = (&served.client, served.admin());
    let ask = |secret: &'static str| {
        let (client, admin) = (&client, &admin);
        async move {
            let bearer = format!("Bearer {secret}");
            let headers = [("authorization", &*bearer)];
            let operated = admin.get_with("/system/functions", &headers).await.status;
            let called = status(client, "/function/o", &headers).await;
            (called == StatusCode::OK, operated == StatusCode::OK)
        }
    };
    for text in ["new", " "] {
        files.iter().for_each(|file| std::fs::write(file, text).unwrap());
        served.gateway.reload();
        assert_eq!(ask("old").await, (false, false));
        assert_eq!(ask("new").await, (true, true), "what cannot be used changes nothing");
    }
}
