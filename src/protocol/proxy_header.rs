//! The PROXY protocol, versions 1 and 2: for whom a proxy has connected, in a header before the first
//! request (HAProxy's `proxy-protocol.txt`, revision of 2020).
//!
//! Whether the peer may say so is the caller's to know; from anyone else such bytes are a bad request.
//! Called by the shard with whatever has arrived.
//!
//! Invariant: the answer to a header is the same however it was cut on its way, and one that cannot
//! become whole is refused at the first look that shows it.
//!
//! Next: [`crate::protocol::forwarded`]: the same, told by each request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its bytes.
    pub length: usize,
    /// Who has connected to the proxy; `None` if the proxy speaks for itself (a health check), or does
    /// not know, or for one of a family without addresses.
    pub source: Option<SocketAddr>,
}

/// It is no header of either version, or longer than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadProxyHeader;

/// Section 2.1: the longest line, with CRLF.
const V1_MOST: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, and the length of what follows.
const V2_FIXED: usize = 16;

/// Reads the header at the start of `received`, of at most so many bytes; `None` if it is not whole.
///
/// # Errors
///
/// It is none.
pub fn parse(received: &[u8], most: usize) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    match received.first() {
        None => Ok(None),
        Some(b'P') => v1(received, most),
        Some(_) => v2(received, most),
    }
}

/// Whether `received` begins with all of `signature`, or with less of it.
fn begins_with(received: &[u8], signature: &[u8]) -> Result<bool, BadProxyHeader> {
    let length = received.len().min(signature.len());
    match received[..length] == signature[..length] {
        true => Ok(length == signature.len()),
        false => Err(BadProxyHeader),
    }
}

/// `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443`
fn v1(received: &[u8], most: usize) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    if !begins_with(received, V1)? {
        return Ok(None);
    }
    let most = most.min(V1_MOST);
    let seen = &received[..received.len().min(most)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return if seen.len() < most { Ok(None) } else { Err(BadProxyHeader) };
    };
    let line = seen[..end].strip_suffix(b"\r").ok_or(BadProxyHeader)?;
    let line = std::str::from_utf8(&line[V1.len()..]).map_err(|_| BadProxyHeader)?;
    Ok(Some(ProxyHeader { length: end + 1, source: v1_source(line)? }))
}

fn v1_source(line: &str) -> Result<Option<SocketAddr>, BadProxyHeader> {
    let mut words = line.split(' ');
    let is_v4 = match words.next() {
        // Section 2.1: what follows is ignored.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return Err(BadProxyHeader),
    };
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok());
    let (source, target) = (address().ok_or(BadProxyHeader)?, address().ok_or(BadProxyHeader)?);
    let mut port = || words.next().and_then(port);
    let (source_port, target_port) = (port(), port());
    let is_whole = words.next().is_none() && target_port.is_some();
    match source_port {
        Some(port) if is_whole && source.is_ipv4() == is_v4 && target.is_ipv4() == is_v4 => {
            Ok(Some(SocketAddr::new(source, port)))
        }
        _ => Err(BadProxyHeader),
    }
}

/// Digits without a zero in front.
fn port(word: &str) -> Option<u16> {
    word.parse().ok().filter(|port: &u16| port.to_string() == word)
}

fn v2(received: &[u8], most: usize) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    if !begins_with(received, V2)? {
        return Ok(None);
    }
    // Byte by byte, so that a bad one is told as soon as it is there.
    let Some(&command) = received.get(12) else { return Ok(None) };
    if !matches!(command, 0x20 | 0x21) {
        return Err(BadProxyHeader);
    }
    let Some(&family) = received.get(13) else { return Ok(None) };
    // Section 2.2: unspecified, or a family with streams; we have accepted one. For itself a proxy may say
    // anything there.
    let needed = match family {
        _ if command == 0x20 => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(BadProxyHeader),
    };
    let Some(&[high, low]) = received.get(14..V2_FIXED) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_FIXED + rest;
    if rest < needed || length > most {
        return Err(BadProxyHeader);
    }
    let Some(addresses) = received.get(V2_FIXED..length) else { return Ok(None) };
    // What stands behind the addresses (TLVs) is not looked at.
    let source = match (command, family) {
        (0x21, 0x11) => v2_source::<4>(addresses),
        (0x21, 0x21) => v2_source::<16>(addresses),
        _ => None,
    };
    Ok(Some(ProxyHeader { length, source }))
}

/// Two addresses of so many bytes, and behind them two ports; the first ones are the source's.
fn v2_source<const N: usize>(addresses: &[u8]) -> Option<SocketAddr> {
    let port = addresses.get(2 * N..)?.first_chunk()?;
    let bytes = addresses.get(..N)?;
    let ip = match N {
        4 => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    fn v4_addresses(more: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 7, 192, 0, 2, 1, 0xdc, 0x04, 0x01, 0xbb][..], more].concat()
    }

    fn v6_addresses() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        vec![
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n".to_vec(), Some("192.0.2.7:56324")),
            (b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n".to_vec(), Some("[2001:db8::7]:56324")),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(), Some("0.0.0.0:0")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever 1 2 3\r\n".to_vec(), None),
            (v2_header(0x21, 0x11, &v4_addresses(b"")), Some("192.0.2.7:56324")),
            // With a TLV: PP2_TYPE_ALPN.
            (v2_header(0x21, 0x11, &v4_addresses(b"\x01\x00\x02h2")), Some("192.0.2.7:56324")),
            (v2_header(0x21, 0x21, &v6_addresses()), Some("[2001:db8::7]:56324")),
            (v2_header(0x21, 0x31, &[b'/'; 216]), None),
            (v2_header(0x21, 0x00, b""), None),
            (v2_header(0x20, 0x00, b""), None),
            (v2_header(0x20, 0x11, &v4_addresses(b"")), None),
            (v2_header(0x20, 0xff, b"x"), None),
        ]
    }

    #[test]
    fn a_header_is_read_whole_and_waited_for_wherever_it_is_cut() {
        for (header, source) in good() {
            let source = source.map(|text| text.parse().unwrap());
            let found = Ok(Some(ProxyHeader { length: header.len(), source }));
            assert_eq!(parse(&header, MOST), found, "{}", header.escape_ascii());
            let with_request = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&with_request, MOST), found);
            assert_eq!(parse(&with_request, header.len()), found, "exactly as long as may be");
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut], MOST), Ok(None), "{cut}");
            }
            let too_long = parse(&header, header.len() - 1);
            assert_eq!(too_long, Err(BadProxyHeader));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_the_first_look_that_shows_it() {
        let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; V1_MOST]].concat();
        for (bad, shown_by) in [
            (&b"GET / HTTP/1.1\r\n"[..], 1),
            (b"POST / HTTP/1.1\r\n", 2),
            (b"PROXY\tTCP4", 6),
            (b"\r\n\r\nGET", 5),
            (b"\x16\x03\x01", 1),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\n", 41),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n", 38),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443 1\r\n", 44),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 056324 443\r\n", 43),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 +5 443\r\n", 39),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 443\r\n", 42),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", 24),
            (b"PROXY TCP6 ::1 1.1.1.1 1 2\r\n", 28),
            (b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n", 37),
            (b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n", 36),
            (b"PROXY tcp4 192.0.2.7 192.0.2.1 1 2\r\n", 36),
            (b"PROXY \r\n", 8),
            (b"PROXY \xff\r\n", 9),
            (&too_long, V1_MOST),
            (&v2_header(0x11, 0x11, &v4_addresses(b"")), 13),
            (&v2_header(0x22, 0x11, &v4_addresses(b"")), 13),
            (&v2_header(0x21, 0x12, &v4_addresses(b"")), 14),
            (&v2_header(0x21, 0x41, &v4_addresses(b"")), 14),
            (&v2_header(0x21, 0x11, &[0; 11]), 16),
            (&v2_header(0x21, 0x21, &[0; 35]), 16),
            (&v2_header(0x21, 0x00, &[0; MOST]), 16),
        ] {
            let shown = bad.escape_ascii().to_string();
            for end in 0..=bad.len() {
                let expected = if end < shown_by { Ok(None) } else { Err(BadProxyHeader) };
                assert_eq!(parse(&bad[..end], MOST), expected, "{shown} up to {end}");
            }
        }
    }
}
