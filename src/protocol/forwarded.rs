//! X-Forwarded-For and Forwarded (RFC 7239): for whom proxies send a request.
//!
//! Each proxy writes behind what it was sent whom that came from. So the list is read from its end, and
//! what stands left of an address that is nobody's proxy may be invented. Whom to believe is the caller's
//! to know. Called by the shard.
//!
//! Invariant: no byte left of the first address that is not believed changes the answer.
//!
//! Next: [`crate::protocol::target`]: whom and what a request is for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which of the two fields is read. Not both: a proxy that writes one of them passes on what a client has
/// written into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyHeaders {
    /// None of them.
    #[default]
    Off,
    /// X-Forwarded-For.
    XForwardedFor,
    /// Forwarded.
    Forwarded,
}

impl ProxyHeaders {
    /// The client, in the fields of a request: the address furthest to the right that is not
    /// `is_trusted`; if all are, the one furthest to the left. What is no address ends the search at the
    /// one to its right. `None` if there is none. A port that is not told is 0.
    pub fn client(
        self,
        fields: &[httparse::Header<'_>],
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<SocketAddr> {
        let name = match self {
            ProxyHeaders::Off => return None,
            ProxyHeaders::XForwardedFor => "x-forwarded-for",
            ProxyHeaders::Forwarded => "forwarded",
        };
        let fields = fields.iter().rev().filter(|field| field.name.eq_ignore_ascii_case(name));
        let elements = fields.flat_map(|field| field.value.rsplit(|&byte| byte == b','));
        let mut client = None;
        // RFC 9110 5.6.1: empty elements do not count.
        for element in elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
            let node = match self {
                ProxyHeaders::Forwarded => for_parameter(element),
                _ => Some(element),
            };
            let Some(address) = node.and_then(address) else { break };
            client = Some(address);
            if !is_trusted(address.ip()) {
                break;
            }
        }
        client
    }
}

/// The node of `for=192.0.2.7;proto=https`, which may be quoted.
fn for_parameter(element: &[u8]) -> Option<&[u8]> {
    let mut pairs = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    })?;
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

/// An address, with a port or without; of IPv6 in brackets or not.
fn address(node: &[u8]) -> Option<SocketAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = |text: &str| text.parse().ok().map(|ip| SocketAddr::new(ip, 0));
    let in_brackets = || {
        let ip: Ipv6Addr = node.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
        Some(SocketAddr::new(ip.into(), 0))
    };
    let mut address = node.parse().ok().or_else(|| bare(node)).or_else(in_brackets)?;
    address.set_ip(address.ip().to_canonical());
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client, where 10.0.0.0/8 and fd00::/8 are our proxies'.
    fn client(which: ProxyHeaders, fields: &[(&str, &str)]) -> Option<String> {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| httparse::Header { name, value: value.as_bytes() })
            .collect();
        let is_ours = |ip| match ip {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        };
        which.client(&fields, is_ours).map(|address| address.to_string())
    }

    #[test]
    fn it_is_the_rightmost_address_that_is_not_a_proxys() {
        for (values, expected) in [
            (&["192.0.2.7"][..], Some("192.0.2.7:0")),
            (&["192.0.2.7:4711"], Some("192.0.2.7:4711")),
            (&["2001:db8::7"], Some("[2001:db8::7]:0")),
            (&["[2001:db8::7]:4711"], Some("[2001:db8::7]:4711")),
            (&["[2001:db8::7]"], Some("[2001:db8::7]:0")),
            (&["::ffff:192.0.2.7"], Some("192.0.2.7:0")),
            (&["1.1.1.1, 192.0.2.7, 10.0.0.1"], Some("192.0.2.7:0")),
            (&["1.1.1.1", "192.0.2.7", "10.0.0.1,10.0.0.2"], Some("192.0.2.7:0")),
            (&["10.0.0.1", "fd00::1"], Some("10.0.0.1:0")),
            (&["1.1.1.1, unknown, 10.0.0.1"], Some("10.0.0.1:0")),
            (&["1.1.1.1, unknown"], None),
            (&["", " ,, 192.0.2.7 , "], Some("192.0.2.7:0")),
            (&[""], None),
            (&[], None),
            (&["192.0.2"], None),
            (&["192.0.2.7:99999"], None),
            (&["\"192.0.2.7\""], None),
            (&["192.0.2.7 1.1.1.1"], None),
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("X-Forwarded-For", *value)).collect();
            let found = client(ProxyHeaders::XForwardedFor, &fields);
            assert_eq!(found.as_deref(), expected, "{values:?}");
            assert_eq!(
                client(ProxyHeaders::Forwarded, &fields),
                None,
                "the other field is not read"
            );
            assert_eq!(client(ProxyHeaders::Off, &fields), None);
        }
    }

    #[test]
    fn forwarded_has_it_among_its_parameters() {
        for (value, expected) in [
            ("for=192.0.2.7", Some("192.0.2.7:0")),
            ("For=\"192.0.2.7:80\";proto=https", Some("192.0.2.7:80")),
            ("by=10.0.0.9; FOR=\"[2001:db8::7]:80\" ;host=a", Some("[2001:db8::7]:80")),
            ("for=1.1.1.1, for=192.0.2.7, for=10.0.0.1", Some("192.0.2.7:0")),
            ("for=1.1.1.1, for=_hidden, for=10.0.0.1", Some("10.0.0.1:0")),
            ("for=1.1.1.1, proto=http", None),
            ("for=1.1.1.1, for=", None),
            ("for=1.1.1.1, for=\"", None),
            ("192.0.2.7", None),
        ] {
            let found = client(ProxyHeaders::Forwarded, &[("forwarded", value)]);
            assert_eq!(found.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn what_a_client_invents_on_the_left_changes_nothing() {
        for invented in
            ["10.0.0.1, 1.1.1.1", "unknown", "\"", "for=\"a, b", "\u{e9}", "10.0.0.1", ";"]
        {
            for told in ["192.0.2.7", "192.0.2.7, 10.0.0.1"] {
                let value = format!("{invented}, {told}");
                let found = client(ProxyHeaders::XForwardedFor, &[("x-forwarded-for", &value)]);
                assert_eq!(found.as_deref(), Some("192.0.2.7:0"), "{value}");
                let found = client(
                    ProxyHeaders::XForwardedFor,
                    &[("x-forwarded-for", invented), ("x-forwarded-for", told)],
                );
                assert_eq!(found.as_deref(), Some("192.0.2.7:0"), "{value}");
            }
        }
    }
}
