//! What a client makes up about where it comes from, before the line that a trusted proxy adds: whatever it is, the
//! proxy's line says who the client is.
#![no_main]

use std::net::IpAddr;

use gatewright_control::forwarded::{Dialect, Network, origin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let peer: IpAddr = [10, 0, 0, 1].into();
    let ours = Network::parse("10.0.0.0/8").expect("it is one");
    let trusted = |address| ours.holds(address);
    for (dialect, name, own) in [
        (Dialect::XForwarded, "x-forwarded-for", "192.0.2.7"),
        (Dialect::Forwarded, "forwarded", "for=192.0.2.7;proto=https"),
    ] {
        let lines = [(name, bytes), (name, own.as_bytes())];
        let found = origin(peer, dialect, &lines[..], trusted);
        assert_eq!(found.client, IpAddr::from([192, 0, 2, 7]), "{dialect:?}");
        // Alone, whatever it says, it is read without a fault.
        origin(peer, dialect, &lines[..1], trusted);
        // In one line, it may hide the proxy's element, but then the request is the proxy's.
        let whole = [bytes, b", ", own.as_bytes()].concat();
        let found = origin(peer, dialect, &[(name, &whole)][..], trusted);
        let made_up = found.client != peer && found.client != IpAddr::from([192, 0, 2, 7]);
        assert!(!made_up, "{dialect:?}: {}", found.client);
    }
    drop(std::str::from_utf8(bytes).map(Network::parse));
});
