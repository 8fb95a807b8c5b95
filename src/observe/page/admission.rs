//! Who may see the live page and its figures, which show inner state.
//!
//! By default only this machine: the peer's address is of it, or the peer came over a Unix socket; no
//! proxy has spoken for the peer; and the request names the server as only this machine would. That last
//! rule is against DNS rebinding, where a site's own name comes to mean 127.0.0.1 and its scripts are of
//! "the same origin" as we. An absolute target counts before the Host field (RFC 9112 3.2.2), but here
//! both must name this machine, because a proxy in front may have checked only the other one. Other
//! sites' scripts are never admitted: a browser lets them open WebSockets to anywhere (RFC 6455 10.2).
//!
//! Next: [`crate::observe::page::figures`]: what they see.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::{Config, PageFor};
use crate::protocol::head::Request;
use crate::token::Peer;

/// Fields by which a proxy on this machine tells that the request is not this machine's.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Why a request for the page or its figures is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// There is no page: it is switched off.
    NoPage,
    /// It is for this machine alone, and the peer is not on it.
    NotForPeer,
    /// It was asked for by a page of another origin, or under another machine's name.
    ForeignOrigin,
}

/// Whether a request for the page or its figures is answered.
///
/// # Errors
///
/// Why it is not.
pub fn admit(request: &Request<'_, '_>, peer: Peer, config: &Config) -> Result<(), NotAdmitted> {
    if !config.page {
        return Err(NotAdmitted::NoPage);
    }
    let host = request.host;
    if config.page_for == PageFor::Loopback {
        // A socket that listens on IPv6 sees 127.0.0.1 as ::ffff:127.0.0.1. A Unix socket is reached
        // from this machine alone.
        let is_here = peer.ip().is_none_or(|ip| ip.to_canonical().is_loopback());
        if !is_here || FORWARDED.iter().any(|name| request.values(name).next().is_some()) {
            return Err(NotAdmitted::NotForPeer);
        }
        if ![host].into_iter().chain(request.values("host")).all(is_nobody_elses_name) {
            return Err(NotAdmitted::ForeignOrigin);
        }
    }
    let mut origins = request.values("origin");
    match (origins.next(), origins.next()) {
        // No browser: those name the origin of every WebSocket.
        (None, _) => Ok(()),
        (Some(origin), None) if is_origin_of(origin, host) => Ok(()),
        _ => Err(NotAdmitted::ForeignOrigin),
    }
}

/// Whether no name server decides where this host is: an address, or `localhost` (RFC 6761 6.3).
fn is_nobody_elses_name(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        // What stands behind a percent sign is the zone, on this machine (RFC 6874).
        let address = address.split_once('%').map_or(address, |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

/// Whether pages of this host have this origin, as browsers write it (RFC 6454 6.2): without the
/// scheme's default port, which the host may have. `null` is nobody's.
fn is_origin_of(origin: &[u8], host: &[u8]) -> bool {
    [(&b"http://"[..], &b":80"[..]), (b"https://", b":443")].into_iter().any(|(scheme, port)| {
        let without_port = |authority: &'_ [u8]| {
            authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
        };
        let authority = origin.strip_prefix(scheme).filter(|authority| !authority.is_empty());
        authority.is_some_and(|authority| without_port(authority) == without_port(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ProtocolLimits;
    use crate::protocol::head::header_slots;
    use std::net::SocketAddr;

    fn verdict(peer: &str, fields: &str, config: &Config) -> Result<(), NotAdmitted> {
        verdict_on("/", peer, fields, config)
    }

    fn verdict_on(
        target: &str,
        peer: &str,
        fields: &str,
        config: &Config,
    ) -> Result<(), NotAdmitted> {
        let peer = match peer {
            "unix:" => Peer::Unix,
            address => address.parse::<SocketAddr>().unwrap().into(),
        };
        let head = format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n");
        let mut slots = header_slots();
        let request =
            Request::parse(head.as_bytes(), &mut slots, &ProtocolLimits::from(&Config::default()))
                .unwrap();
        admit(&request, peer, config)
    }

    const HERE: &str = "127.0.0.1:50000";
    const THERE: &str = "192.0.2.7:50000";

    #[test]
    fn by_default_only_this_machine() {
        let config = Config::default();
        for peer in [HERE, "127.8.9.10:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:"] {
            assert_eq!(verdict(peer, "Host: localhost:8000", &config), Ok(()), "{peer}");
        }
        for peer in [THERE, "10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.7]:1", "[::]:1"] {
            let refused = Err(NotAdmitted::NotForPeer);
            assert_eq!(verdict(peer, "Host: localhost:8000", &config), refused, "{peer}");
        }
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_make_the_world_local() {
        for field in ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7", "Via: 1.1 proxy"] {
            let fields = format!("Host: 127.0.0.1\r\n{field}");
            for peer in [HERE, "unix:"] {
                let refused = Err(NotAdmitted::NotForPeer);
                assert_eq!(verdict(peer, &fields, &Config::default()), refused, "{peer} {field}");
            }
        }
    }

    #[test]
    fn by_default_only_under_a_name_that_no_name_server_gives_out() {
        let config = Config::default();
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
            "[fe80::1%25lo]:8000",
            "[fe80::1%lo]",
        ] {
            assert_eq!(verdict(HERE, &format!("Host: {host}"), &config), Ok(()), "{host}");
        }
        for host in [
            "rebound.example:8000",
            "127.0.0.1.example",
            "localhost.example",
            "1.2.3",
            "localhost%25.example",
            "",
        ] {
            let refused = Err(NotAdmitted::ForeignOrigin);
            assert_eq!(verdict(HERE, &format!("Host: {host}"), &config), refused, "{host}");
        }
    }

    #[test]
    fn neither_target_nor_host_may_name_somebody_else() {
        let config = Config::default();
        for (target, host, expected) in [
            ("http://localhost:8000/", "localhost:8000", Ok(())),
            ("http://127.0.0.1:8000/", "localhost:8000", Ok(())),
            ("http://rebound.example/", "localhost:8000", Err(NotAdmitted::ForeignOrigin)),
            ("http://localhost:8000/", "rebound.example", Err(NotAdmitted::ForeignOrigin)),
        ] {
            let fields = format!("Host: {host}");
            assert_eq!(verdict_on(target, HERE, &fields, &config), expected, "{target} {host}");
        }
        // The origin is the target's.
        for (origin, expected) in [
            ("http://127.0.0.1:8000", Ok(())),
            ("http://localhost:8000", Err(NotAdmitted::ForeignOrigin)),
        ] {
            let fields = format!("Host: localhost:8000\r\nOrigin: {origin}");
            let found = verdict_on("ws://127.0.0.1:8000/", HERE, &fields, &config);
            assert_eq!(found, expected, "{origin}");
        }
    }

    #[test]
    fn the_default_port_is_the_same_named_or_not() {
        let config = Config { page_for: PageFor::Any, ..Config::default() };
        for (origin, host, expected) in [
            ("http://a", "a:80", true),
            ("http://a:80", "a", true),
            ("https://a", "A:443", true),
            ("https://[::1]", "[::1]:443", true),
            ("http://a", "a:443", false),
            ("https://a", "a:80", false),
            ("http://a", "a:8000", false),
            ("http://a:443", "a", false),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert_eq!(verdict(HERE, &fields, &config).is_ok(), expected, "{origin} {host}");
        }
    }

    #[test]
    fn never_for_another_sites_script() {
        for page_for in [PageFor::Loopback, PageFor::Any] {
            let config = Config { page_for, ..Config::default() };
            for origin in ["http://127.0.0.1:8000", "https://127.0.0.1:8000"] {
                let fields = format!("Host: 127.0.0.1:8000\r\nOrigin: {origin}");
                assert_eq!(verdict(HERE, &fields, &config), Ok(()), "{origin}");
            }
            for origin in [
                "http://evil.example",
                "http://127.0.0.1:8001",
                "http://127.0.0.1",
                "http://127.0.0.1:8000.evil.example",
                "http://127.0.0.1:8000/",
                "chrome-extension://127.0.0.1:8000",
                "null",
                "",
                "http://127.0.0.1:8000\r\nOrigin: http://127.0.0.1:8000",
            ] {
                let fields = format!("Host: 127.0.0.1:8000\r\nOrigin: {origin}");
                let refused = Err(NotAdmitted::ForeignOrigin);
                assert_eq!(verdict(HERE, &fields, &config), refused, "{origin}");
            }
        }
    }

    #[test]
    fn for_any_is_for_anyone_and_off_is_for_nobody() {
        let any = Config { page_for: PageFor::Any, ..Config::default() };
        let fields = "Host: Chat.Example\r\nOrigin: https://chat.example\r\nVia: 1.1 proxy";
        assert_eq!(verdict(THERE, fields, &any), Ok(()));
        let off = Config { page: false, ..any };
        assert_eq!(verdict(HERE, "Host: localhost", &off), Err(NotAdmitted::NoPage));
    }
}
