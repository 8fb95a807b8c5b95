//! The opening handshake of RFC 6455, section 4.2: whether a request may become a WebSocket, and
//! the response that makes it one.
//!
//! Knows nothing of routes: what else the response says is the caller's, and so is what is answered to a
//! request that breaks a rule. Called when a request for the WebSocket path is complete.
//!
//! Next: [`crate::protocol::frame`]: what is spoken behind the 101.

use sha1_smol::Sha1;

use super::head::Request;

/// RFC 6455 1.3: what the key is hashed with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// Its method is not GET.
    NotGet,
    /// It asks for no WebSocket.
    NoUpgrade,
    /// It is HTTP/1.0.
    HttpVersion,
    /// Its `Connection` field does not say that it upgrades.
    BadConnection,
    /// It has content.
    UnexpectedBody,
    /// Nothing in it names a host.
    NoHost,
    /// It asks for another version than 13 (RFC 6455 4.4).
    BadVersion,
    /// `Sec-WebSocket-Key` is missing, repeated, or not 16 bytes of base64.
    BadKey,
}

/// The value of `Sec-WebSocket-Accept`: base64 of the SHA-1 of key and GUID (RFC 6455 4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept([u8; 28]);

impl Accept {
    fn of_key(key: &[u8]) -> Accept {
        let mut sha1 = Sha1::new();
        sha1.update(key);
        sha1.update(GUID);
        let mut text = [0; 28];
        data_encoding::BASE64.encode_mut(&sha1.digest().bytes(), &mut text);
        Accept(text)
    }

    /// As it stands in the response.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Judges an upgrade, rule by rule of RFC 6455 4.2.1.
///
/// # Errors
///
/// The first rule that the request breaks.
pub fn judge(request: &Request<'_, '_>) -> Result<Accept, HandshakeError> {
    if request.method != "GET" {
        return Err(HandshakeError::NotGet);
    }
    if !request.has_token("upgrade", "websocket") {
        // A browser, a probe, or a client that offers HTTP/2 (`h2c`) with its first request: RFC 9110
        // 7.8 lets a server ignore an Upgrade to what it does not speak. It learns what is spoken here.
        return Err(HandshakeError::NoUpgrade);
    }
    // "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1."
    if request.http_1_0 {
        return Err(HandshakeError::HttpVersion);
    }
    if !request.has_token("connection", "upgrade") {
        return Err(HandshakeError::BadConnection);
    }
    if request.has_body() {
        return Err(HandshakeError::UnexpectedBody);
    }
    // Item 2: "containing the server's authority", and a ws URI has one (RFC 6455 3).
    if request.host.is_empty() {
        return Err(HandshakeError::NoHost);
    }
    let mut versions = request.values("sec-websocket-version");
    if (versions.next(), versions.next()) != (Some(&b"13"[..]), None) {
        return Err(HandshakeError::BadVersion);
    }
    let mut keys = request.values("sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(Accept::of_key(key)),
        _ => Err(HandshakeError::BadKey),
    }
}

/// "A base64-encoded value that, when decoded, is 16 bytes in length": 22 letters, of which the last
/// has four bits too many, and the padding. RFC 4648 3.5 lets a decoder take those bits whatever they
/// are, and keys that are written into clients do not always have zeros there.
fn is_key(key: &[u8]) -> bool {
    let is_letter = |&letter: &u8| letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'/');
    matches!(key, [letters @ .., b'=', b'='] if letters.len() == 22 && letters.iter().all(is_letter))
}

/// Appends the 101, up to and without the empty line, so that the caller can add its fields and
/// end the head with [`end_response`].
pub fn begin_response(accept: &Accept, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the empty line that ends a response head.
pub fn end_response(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::head::header_slots;
    use super::*;
    use crate::protocol::limits::ProtocolLimits;

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                        Sec-WebSocket-Version: 13\r\n\r\n";

    fn verdict(head: &str) -> Result<Accept, HandshakeError> {
        let mut slots = header_slots();
        let limits = &ProtocolLimits::FOR_TESTS;
        judge(&Request::parse(head.as_bytes(), &mut slots, limits).unwrap())
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 1.3.
        assert_eq!(verdict(GOOD).unwrap().as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn tungstenite_derives_the_same_key() {
        let ours = Accept::of_key(b"AQIDBAUGBwgJCgsMDQ4PEC==");
        let theirs = tungstenite::handshake::derive_accept_key(b"AQIDBAUGBwgJCgsMDQ4PEC==");
        assert_eq!(ours.as_bytes(), theirs.as_bytes());
    }

    #[test]
    fn a_key_is_hashed_as_it_was_sent_whatever_its_last_bits() {
        for last in ["A", "B", "C", "P", "g", "/"] {
            let key = format!("AQIDBAUGBwgJCgsMDQ4PE{last}==");
            let accept = verdict(&GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", &key)).unwrap();
            let theirs = tungstenite::handshake::derive_accept_key(key.as_bytes());
            assert_eq!(accept.as_bytes(), theirs.as_bytes(), "{key}");
        }
    }

    #[test]
    fn each_rule_has_its_answer() {
        for (find, put, expected) in [
            ("GET", "POST", HandshakeError::NotGet),
            ("Upgrade: websocket\r\n", "", HandshakeError::NoUpgrade),
            ("Upgrade: websocket", "Upgrade: h2c", HandshakeError::NoUpgrade),
            ("Upgrade: websocket", "Upgrade: websockets", HandshakeError::NoUpgrade),
            ("Host: a", "Host: ", HandshakeError::NoHost),
            ("HTTP/1.1", "HTTP/1.0", HandshakeError::HttpVersion),
            ("Connection: Upgrade", "Connection: close", HandshakeError::BadConnection),
            ("Version: 13", "Version: 8", HandshakeError::BadVersion),
            ("Sec-WebSocket-Version: 13\r\n", "", HandshakeError::BadVersion),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", HandshakeError::BadKey),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=A", HandshakeError::BadKey),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", HandshakeError::BadKey),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQA=", HandshakeError::BadKey),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub2-jZQ==", HandshakeError::BadKey),
            ("dGhlIHNhbXBsZSBub25jZQ==", "========================", HandshakeError::BadKey),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", HandshakeError::BadKey),
            (
                "Sec-WebSocket-Version",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version",
                HandshakeError::BadKey,
            ),
            ("Host: a", "Host: a\r\nContent-Length: 3", HandshakeError::UnexpectedBody),
        ] {
            assert_eq!(verdict(&GOOD.replacen(find, put, 1)), Err(expected), "{find} -> {put}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists_and_in_any_case() {
        let firefox = GOOD.replace("Connection: Upgrade", "Connection: keep-alive, UPGRADE");
        assert!(verdict(&firefox.replace("websocket", "WebSocket")).is_ok());
    }
}
