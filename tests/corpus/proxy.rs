//! What proxies say: headers of the PROXY protocol, and the fields of requests.
//!
//! Input: a byte that says how large the pieces are, then what a proxy sends. The same bytes are taken
//! for a header, and for the value of each of the two fields.

use std::net::IpAddr;

use revolve::config::{ProxyHeaders, TrustedProxies};
use revolve::protocol::proxy_header::{self, BadProxyHeader, ProxyHeader};

/// As much as a request's head may have by default.
const MOST: usize = 16 << 10;

pub(crate) fn run(data: &[u8]) {
    let Some((&piece, sent)) = data.split_first() else { return };
    let at_once = proxy_header::parse(sent, MOST);
    let in_pieces = in_pieces(sent, usize::from(piece).max(1));
    match (at_once, in_pieces) {
        (Ok(Some(header)), _) => {
            assert_eq!(in_pieces, at_once, "however it was cut");
            check(header, sent);
        }
        // What does not become a header is refused; one bad byte may be shown before the rest has come.
        (Ok(None), _) => assert_eq!(in_pieces, Ok(None)),
        (Err(BadProxyHeader), _) => assert_eq!(in_pieces, Err(BadProxyHeader)),
    }
    for which in [ProxyHeaders::XForwardedFor, ProxyHeaders::Forwarded] {
        check_fields(which, sent);
    }
    if let Ok(text) = std::str::from_utf8(sent)
        && let Some(proxies) = TrustedProxies::parse(text)
    {
        assert_eq!(TrustedProxies::parse(&proxies.to_string()), Some(proxies));
    }
}

fn in_pieces(sent: &[u8], piece: usize) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let mut arrived = 0;
    while arrived < sent.len() {
        arrived = (arrived + piece).min(sent.len());
        let found = proxy_header::parse(&sent[..arrived], MOST);
        if found != Ok(None) {
            return found;
        }
    }
    assert!(sent.len() < MOST, "so much, and still no answer");
    Ok(None)
}

fn check(header: ProxyHeader, sent: &[u8]) {
    assert!(header.length <= sent.len() && header.length <= MOST);
    let whole = &sent[..header.length];
    assert_eq!(proxy_header::parse(whole, MOST), Ok(Some(header)), "what follows is not looked at");
    assert_eq!(proxy_header::parse(&whole[..header.length - 1], MOST), Ok(None));
    if let (Some(source), true) = (header.source, whole.starts_with(b"PROXY ")) {
        let port = source.port().to_string();
        assert!(whole.windows(port.len()).any(|text| text == port.as_bytes()));
    }
}

/// What a client writes in front of what a proxy has written changes nothing.
fn check_fields(which: ProxyHeaders, value: &[u8]) {
    let name = match which {
        ProxyHeaders::Forwarded => "Forwarded",
        _ => "X-Forwarded-For",
    };
    let told: &[u8] = match which {
        ProxyHeaders::Forwarded => b"for=192.0.2.7",
        _ => b"192.0.2.7",
    };
    let is_trusted = |ip: IpAddr| ip.is_loopback();
    let alone = which.client(&[httparse::Header { name, value }], is_trusted);
    assert!(alone.is_none_or(|client| client.ip().to_canonical() == client.ip()));
    let behind = [value, b", ", told].concat();
    for fields in [
        &[httparse::Header { name, value: &behind }][..],
        &[httparse::Header { name, value }, httparse::Header { name, value: told }],
    ] {
        let client = which.client(fields, is_trusted);
        assert_eq!(client.map(|client| client.to_string()).as_deref(), Some("192.0.2.7:0"));
    }
}
