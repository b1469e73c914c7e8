//! Who a request really comes from, where proxies stand before the gateway: `Forwarded` (RFC 7239) and
//! `X-Forwarded-For`, read from the right through hops that are trusted and no further.
//!
//! Each proxy appends the address that it was connected from. What is right of the first address that is not a trusted
//! proxy's was written by trusted ones; what is left of it, anybody could have made up.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use crate::cache::{Fields, elements};

/// Hops that are looked at, from the right; a request that came over more is taken to come from the last of them.
const HOPS: usize = 32;

/// An address, or the addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that count.
    prefix: u8,
}

/// Which fields tell of the hops before this one. One of them: a proxy appends to the one that it knows, and passes
/// on what a client wrote into the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Where a request began, as far as it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The address of the client: the first one from the right that is no trusted proxy's, or the last that could be
    /// read.
    pub client: IpAddr,
    /// Whether the client spoke TLS to the first trusted proxy, if that said so.
    pub secure: Option<bool>,
    /// The host that the client asked for, if the first trusted proxy said so.
    pub host: Option<Vec<u8>>,
}

impl Network {
    /// "10.0.0.0/8", "127.0.0.1", "fd00::/8".
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix })
    }

    /// Whether an address is one of it. An IPv4 address may be written as one of IPv6.
    #[must_use]
    pub fn holds(self, peer: IpAddr) -> bool {
        let same = |left: u128, right: u128, bits: u32| {
            let differing = bits - u32::from(self.prefix);
            left.checked_shr(differing).unwrap_or(0) == right.checked_shr(differing).unwrap_or(0)
        };
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                same(u32::from(own).into(), u32::from(peer).into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(peer)) => same(own.into(), peer.into(), 128),
            _ => false,
        }
    }
}

/// Reads who a request comes from. `peer` is the trusted proxy that sent it; `trusted` says whether an address is one's.
pub fn origin(
    peer: IpAddr,
    dialect: Dialect,
    fields: &(impl Fields + ?Sized),
    trusted: impl Fn(IpAddr) -> bool,
) -> Origin {
    match dialect {
        Dialect::XForwarded => {
            // No quotes here (RFC 7239 was to bring them): one that a client leaves open must not hide what follows.
            let hops = last(fields.values("x-forwarded-for").flat_map(listed));
            let mut client = peer;
            for hop in hops.into_iter().rev() {
                let Some(address) = node(hop) else { break };
                client = address;
                if !trusted(address) {
                    break;
                }
            }
            // These have no hops: the last line is that of the last proxy that wrote one.
            let proto = fields.values("x-forwarded-proto").flat_map(listed).last();
            let host = fields.values("x-forwarded-host").flat_map(listed).last();
            Origin { client, secure: proto.and_then(is_secure), host: host.map(<[u8]>::to_vec) }
        }
        Dialect::Forwarded => {
            let hops = last(fields.values("forwarded").flat_map(elements));
            let mut origin = Origin { client: peer, secure: None, host: None };
            for hop in hops.into_iter().rev() {
                let Some(pairs) = Pairs::read(hop) else { break };
                origin.secure = pairs.proto.as_deref().and_then(is_secure).or(origin.secure);
                origin.host = pairs.host.or(origin.host);
                let Some(address) = pairs.node.as_deref().and_then(node) else { break };
                origin.client = address;
                if !trusted(address) {
                    break;
                }
            }
            origin
        }
    }
}

/// What stands between commas.
fn listed(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

/// The last few of them, the last one last.
fn last<'a>(all: impl Iterator<Item = &'a [u8]>) -> VecDeque<&'a [u8]> {
    let mut kept = VecDeque::with_capacity(HOPS);
    for element in all {
        if kept.len() == HOPS {
            kept.pop_front();
        }
        kept.push_back(element);
    }
    kept
}

/// An address with or without a port: "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80". `None` for
/// "unknown", names, and what is nothing.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| fits).map(canonical);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    let address = address.parse::<std::net::Ipv4Addr>().ok().filter(|_| is_port(port));
    address.map(IpAddr::V4)
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

/// A port, or one in disguise (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(plain)
}

fn is_secure(proto: &[u8]) -> Option<bool> {
    match proto {
        _ if proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss") => {
            Some(true)
        }
        _ if proto.eq_ignore_ascii_case(b"http") || proto.eq_ignore_ascii_case(b"ws") => {
            Some(false)
        }
        _ => None,
    }
}

/// What an element of `Forwarded` says.
#[derive(Debug, Default)]
struct Pairs {
    node: Option<Vec<u8>>,
    proto: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
}

impl Pairs {
    /// `None` if it is no `forwarded-element` (RFC 7239 section 4), or says a thing twice.
    fn read(element: &[u8]) -> Option<Self> {
        let mut pairs = Self::default();
        let mut rest = element;
        loop {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let name = rest[..equals].trim_ascii();
            // A quote in a name is one that somebody left open, to swallow what the next proxy wrote.
            if name.is_empty() || !name.iter().all(|byte| is_plain(*byte)) {
                return None;
            }
            let (value, after) = value(&rest[equals + 1..])?;
            let place = match () {
                () if name.eq_ignore_ascii_case(b"for") => Some(&mut pairs.node),
                () if name.eq_ignore_ascii_case(b"proto") => Some(&mut pairs.proto),
                () if name.eq_ignore_ascii_case(b"host") => Some(&mut pairs.host),
                () => None,
            };
            if let Some(place) = place
                && place.replace(value).is_some()
            {
                return None;
            }
            let after = after.trim_ascii();
            match after.split_first() {
                None => return Some(pairs),
                Some((b';', more)) if more.trim_ascii().is_empty() => return Some(pairs),
                Some((b';', more)) => rest = more,
                Some(_) => return None,
            }
        }
    }
}

/// Whether a byte may be in a token (RFC 9110 section 5.6.2).
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A token or a quoted string, and what comes after it.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        let value = text[..end].trim_ascii();
        // Some write addresses of IPv6 without the quotes that they need.
        let fits = |byte: &u8| is_plain(*byte) || matches!(byte, b':' | b'[' | b']');
        return value.iter().all(fits).then(|| (value.to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[index + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            byte => value.push(*byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(network: &str, peer: &str) -> bool {
        Network::parse(network).unwrap().holds(peer.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Read from a proxy at 10.0.0.1, with 10.0.0.0/8 trusted.
    fn read(dialect: Dialect, lines: &[(&str, &str)]) -> Origin {
        let ours = Network::parse("10.0.0.0/8").unwrap();
        origin(ip("10.0.0.1"), dialect, &lines.to_vec(), |address| ours.holds(address))
    }

    #[test]
    fn networks_hold_what_begins_alike() {
        assert!(holds("10.0.0.0/8", "10.200.3.4") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("::/0", "fe80::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"), "an IPv4 peer of an IPv6 socket");
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "1.2.3.4/"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_through_trusted_hops() {
        for (line, client) in [
            ("", "10.0.0.1"),
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.2.0.1", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4:4711,10.2.0.1 , ,10.2.0.2", "1.2.3.4"),
            ("10.9.9.9, 10.2.0.1", "10.9.9.9"),
            ("6.6.6.6, unknown, 10.2.0.1", "10.2.0.1"),
            ("6.6.6.6, nonsense", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1", "10.0.0.1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:x y", "10.0.0.1"),
            ("6.6.6.6, \", 1.2.3.4", "1.2.3.4"),
        ] {
            let origin = read(Dialect::XForwarded, &[("x-forwarded-for", line)]);
            assert_eq!(origin.client, ip(client), "{line}");
        }
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4, 10.2.0.1")];
        assert_eq!(read(Dialect::XForwarded, &lines).client, ip("1.2.3.4"), "lines are one list");
        let many = vec!["10.5.5.5"; 10_000].join(",");
        let line = format!("1.2.3.4,{many}");
        let origin = read(Dialect::XForwarded, &[("x-forwarded-for", &line)]);
        assert_eq!(origin.client, ip("10.5.5.5"), "no further than it is bounded");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (line, client, secure, host) in [
            ("for=1.2.3.4", "1.2.3.4", None, None),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17", None, None),
            ("for=1.2.3.4;proto=https;by=10.0.0.1;host=a.b", "1.2.3.4", Some(true), Some("a.b")),
            ("for=6.6.6.6, for=1.2.3.4 ; Proto=HTTP, for=10.1.1.1", "1.2.3.4", Some(false), None),
            ("for=1.2.3.4;host=\"a\\\",;b\", for=10.1.1.1", "1.2.3.4", None, Some("a\",;b")),
            ("for=6.6.6.6, for=_hidden;proto=https", "10.0.0.1", Some(true), None),
            ("for=6.6.6.6, for=\"1.2.3.4", "10.0.0.1", None, None),
            ("for=1.2.3.4;for=6.6.6.6", "10.0.0.1", None, None),
            ("for=1.2.3.4;", "1.2.3.4", None, None),
            ("for=6.6.6.6;\"x, for=1.2.3.4", "10.0.0.1", None, None),
            ("for=6.6.6.6;x=\", for=1.2.3.4;by=\"_b\"", "10.0.0.1", None, None),
            ("for=6.6.6.6;x=y\", for=\"[2001:db8::1]\"", "10.0.0.1", None, None),
            ("nothing", "10.0.0.1", None, None),
        ] {
            let origin = read(Dialect::Forwarded, &[("forwarded", line)]);
            let host = host.map(|host| host.as_bytes().to_vec());
            assert_eq!(origin, Origin { client: ip(client), secure, host }, "{line}");
        }
    }

    #[test]
    fn the_other_dialect_says_nothing() {
        let lines = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(read(Dialect::XForwarded, &lines).client, ip("1.2.3.4"));
        assert_eq!(read(Dialect::Forwarded, &lines).client, ip("6.6.6.6"));
    }

    proptest! {
        /// Whatever a client sends through a proxy that appends its address: that address is found.
        #[test]
        fn what_a_client_makes_up_changes_nothing(made_up in "[ -~]{0,60}", client in any::<u32>()) {
            let client = IpAddr::V4(client.into());
            prop_assume!(!holds("10.0.0.0/8", &client.to_string()));
            // As two lines, so that an open quote of the client's does not swallow the proxy's element.
            let own = client.to_string();
            let lines = [("x-forwarded-for", made_up.as_str()), ("x-forwarded-for", own.as_str())];
            prop_assert_eq!(read(Dialect::XForwarded, &lines).client, client);
            let own = format!("for={own}");
            let lines = [("forwarded", made_up.as_str()), ("forwarded", own.as_str())];
            prop_assert_eq!(read(Dialect::Forwarded, &lines).client, client);
            // In one line it may hide the proxy's element, but then the request is the proxy's.
            let whole = format!("{made_up}, {own};proto=https");
            let found = read(Dialect::Forwarded, &[("forwarded", &whole)]).client;
            prop_assert!(found == client || found == ip("10.0.0.1"), "{}", found);
        }
    }
}
