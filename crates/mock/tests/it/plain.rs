use std::io::{Read as _, Write as _};
use std::num::NonZeroU32;

use gatewright_mock::HttpConfig;
use gatewright_sim::Law;

use crate::client::{get, read, send, server};

#[test]
fn any_path_has_the_same_answer() {
    let mock = server(|config| {
        let body_bytes = 1000;
        config.http = Some(HttpConfig { status: 203, body_bytes, ..HttpConfig::default() });
    });
    for path in ["/", "/v1/models", "/a/b?c=d"] {
        let reply = get(&mock, path);
        assert_eq!((reply.status, reply.body.len()), (203, 1000), "{path}");
    }
    let reply = read(&mut send(mock.address(), "PUT", "/x", b"something")).unwrap();
    assert_eq!(reply.status, 203);
    assert_eq!(mock.stop().unwrap().requests, 4);
}

#[test]
fn both_servers_share_an_address() {
    let mock = server(|config| {
        let body = Some("hello".to_owned());
        config.http = Some(HttpConfig { body, ..HttpConfig::default() });
        config.openai = Some(gatewright_mock::OpenAiConfig::default());
    });
    assert_eq!(get(&mock, "/other").body, b"hello");
    assert_eq!(get(&mock, "/v1/models").json()["object"], "list");
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let mock = server(|config| config.http = Some(HttpConfig::default()));
    let mut stream = std::net::TcpStream::connect(mock.address()).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: mock\r\n\r\n";
    stream.write_all(&request.repeat(3)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 4);
    assert_eq!(mock.summary().connections, 1);
}

#[test]
fn a_full_line_turns_away() {
    let mock = server(|config| {
        config.http = Some(HttpConfig {
            latency: Law::Fixed(0.3),
            slots: NonZeroU32::new(1),
            queue: 1,
            ..HttpConfig::default()
        });
    });
    let mut sent: Vec<_> = (0..4).map(|_| send(mock.address(), "GET", "/", b"")).collect();
    let mut statuses: Vec<u16> =
        sent.iter_mut().map(|stream| read(stream).unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    assert_eq!(mock.stop().unwrap().refused, 2);
}
