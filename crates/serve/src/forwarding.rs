//! Where a request comes from, as proxies before the gateway say it, and as upstreams are told.

use std::fmt::Write as _;
use std::net::IpAddr;

use gatewright_control::config::{ProxyFields, SentFields, SystemFile};
use gatewright_control::forwarded::{Dialect, Network, Origin, origin};
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::{Client, FieldsOf};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Which proxies are believed, and what upstreams are told.
#[derive(Debug)]
pub(crate) struct Forwarding {
    trusted: Vec<Network>,
    dialect: Dialect,
    sent: SentFields,
}

impl Forwarding {
    /// Of a file that was checked.
    pub(crate) fn new(system: &SystemFile) -> Self {
        let gateway = &system.gateway;
        let trusted = gateway.trusted_proxies.iter().filter_map(|entry| Network::parse(entry));
        Self {
            trusted: trusted.collect(),
            dialect: match gateway.proxy_fields {
                ProxyFields::XForwarded => Dialect::XForwarded,
                ProxyFields::Forwarded => Dialect::Forwarded,
            },
            sent: gateway.sent_fields,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.holds(address))
    }

    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        origin(peer, self.dialect, &FieldsOf(headers), |address| self.trusts(address))
    }

    /// The client behind whoever connected.
    pub(crate) fn client(&self, direct: Client, headers: &HeaderMap) -> Client {
        let trusted = direct.address.filter(|_| !self.trusted.is_empty());
        let Some(peer) = trusted.filter(|peer| self.trusts(*peer)) else { return direct };
        let origin = self.origin(peer, headers);
        Client {
            address: Some(origin.client),
            secure: origin.secure.unwrap_or(direct.secure),
            proxy: Some((peer, direct.secure)),
        }
    }

    /// Tells an upstream where a request comes from. What came with it of that stays only where it is a trusted
    /// proxy's; `Host` goes, because the upstream has its own.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, client: Client) {
        let proxy = client.proxy.filter(|_| client.address.is_some());
        let told = proxy.map(|(peer, _)| self.origin(peer, headers));
        let own = headers.remove(HOST);
        let said = told.and_then(|origin| origin.host);
        let host = said.and_then(|host| HeaderValue::from_bytes(&host).ok()).or(own);
        let believed = |name: &HeaderName, dialect| {
            let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
            let lines: Vec<_> =
                lines.filter(|_| proxy.is_some() && self.dialect == dialect).collect();
            lines.join(", ")
        };
        let hops = believed(&FORWARDED_FOR, Dialect::XForwarded);
        let elements = believed(&FORWARDED, Dialect::Forwarded);
        forget(headers);
        let peer = proxy.map(|(peer, _)| peer).or(client.address);
        let last_secure = proxy.map_or(client.secure, |(_, secure)| secure);
        if matches!(self.sent, SentFields::XForwarded | SentFields::Both) {
            insert(
                headers,
                FORWARDED_FOR,
                chain(hops, client, peer, |address| address.to_string()),
            );
            let proto = if client.secure { "https" } else { "http" };
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
            host.iter().for_each(|host| drop(headers.insert(FORWARDED_HOST, host.clone())));
        }
        if matches!(self.sent, SentFields::Forwarded | SentFields::Both) {
            let mut line =
                chain(elements, client, peer, |address| format!("for={}", node(address)));
            if !line.is_empty() {
                line.push(';');
            }
            let host = host.as_ref().and_then(|host| host.to_str().ok());
            if let Some(host) = host {
                write!(line, "host={};", quoted(host)).expect("a String takes everything");
            }
            line.push_str(if last_secure { "proto=https" } else { "proto=http" });
            insert(headers, FORWARDED, line);
        }
    }
}

/// Removes whatever says where a request comes from.
fn forget(headers: &mut HeaderMap) {
    let says = |name: &HeaderName| {
        *name == FORWARDED || *name == REAL_IP || name.as_str().starts_with("x-forwarded-")
    };
    let names: Vec<_> = headers.keys().filter(|name| says(name)).cloned().collect();
    names.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// The hops so far and the last one.
fn chain(
    mut hops: String,
    client: Client,
    peer: Option<IpAddr>,
    written: impl Fn(IpAddr) -> String,
) -> String {
    if hops.is_empty()
        && client.address != peer
        && let Some(address) = client.address
    {
        hops = written(address);
    }
    let Some(peer) = peer else { return hops };
    if hops.is_empty() { written(peer) } else { format!("{hops}, {}", written(peer)) }
}

/// An address as a node of RFC 7239 section 6.
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

/// A token, or a quoted string where it is none (RFC 7239 section 4).
fn quoted(text: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(token) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, line: String) {
    if !line.is_empty()
        && let Ok(line) = HeaderValue::try_from(line)
    {
        headers.insert(name, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarding(gateway: &str) -> Forwarding {
        let text = format!("[gateway]\n{gateway}\n");
        Forwarding::new(&SystemFile::parse(&text, &[]).unwrap())
    }

    /// What an upstream is told of a request that came from 10.0.0.1 with these lines.
    fn told(gateway: &str, lines: &[(&'static str, &str)]) -> (String, String) {
        let forwarding = forwarding(gateway);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("front:8080"));
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let direct = Client { address: Some([10, 0, 0, 1].into()), ..Client::default() };
        let client = forwarding.client(direct, &headers);
        forwarding.tell(&mut headers, client);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort_unstable();
        (client.address.unwrap().to_string(), lines.join("\n"))
    }

    #[test]
    fn what_a_stranger_says_of_itself_is_dropped() {
        let lines = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
        ];
        for gateway in ["", "trusted_proxies = [\"10.0.0.2\"]"] {
            let (client, upstream) = told(gateway, &lines);
            assert_eq!(client, "10.0.0.1");
            assert_eq!(
                upstream,
                "x-forwarded-for: 10.0.0.1\nx-forwarded-host: front:8080\nx-forwarded-proto: http"
            );
        }
        let (_, upstream) = told("sent_fields = \"forwarded\"", &lines);
        assert_eq!(upstream, "forwarded: for=10.0.0.1;host=\"front:8080\";proto=http");
        assert_eq!(told("sent_fields = \"none\"", &lines).1, "");
    }

    #[test]
    fn an_address_of_ipv6_is_written_as_a_node() {
        let mut headers = HeaderMap::new();
        let client = Client { address: Some("2001:db8::1".parse().unwrap()), ..Client::default() };
        forwarding("sent_fields = \"both\"").tell(&mut headers, client);
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";proto=http");
        assert_eq!(headers[FORWARDED_FOR], "2001:db8::1");
    }

    #[test]
    fn what_a_trusted_proxy_says_is_passed_on_and_added_to() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("forwarded", "for=7.7.7.7"),
        ];
        let trusted = "trusted_proxies = [\"10.0.0.0/8\"]";
        let (client, upstream) = told(trusted, &lines);
        assert_eq!(client, "1.2.3.4");
        assert_eq!(
            upstream,
            "x-forwarded-for: 6.6.6.6, 1.2.3.4, 10.0.0.1\nx-forwarded-host: shop\nx-forwarded-proto: https"
        );
        let both = format!("{trusted}\nsent_fields = \"both\"");
        let (_, upstream) = told(&both, &lines);
        assert!(
            upstream.starts_with("forwarded: for=1.2.3.4, for=10.0.0.1;host=shop;proto=http\n"),
            "of the other dialect only what is believed: {upstream}"
        );
        let other = format!("{both}\nproxy_fields = \"forwarded\"");
        let (client, upstream) =
            told(&other, &[("forwarded", "for=\"[2001:db8::1]\";proto=https")]);
        assert_eq!(client, "2001:db8::1");
        assert_eq!(
            upstream,
            "forwarded: for=\"[2001:db8::1]\";proto=https, for=10.0.0.1;host=\"front:8080\";proto=http\n\
             x-forwarded-for: 2001:db8::1, 10.0.0.1\nx-forwarded-host: front:8080\nx-forwarded-proto: https"
        );
    }
}
