//! What a client's offer of permessage-deflate leads to (RFC 7692 7.1): nothing, or an agreement of
//! one byte, and the response field that says so.
//!
//! Called once a handshake, if `--ws-per-message-deflate` is on.
//!
//! Next: `inflater`, what comes in under it.

use super::super::head::Request;
use super::MalformedOffer;
use super::offers::{Offer, Parameter, Value, offers};

/// Both sides deflate, neither remembers a message in the next, and we look back no further than
/// the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateParams {
    /// `server_max_window_bits`, if the client named it (7.1.2.1). Without, the window is DEFLATE's
    /// own, the largest.
    server_window: Option<Window>,
}

/// A window of 2^n bytes. An enum, because there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Window {
    Bits8 = 8,
    Bits9,
    Bits10,
    Bits11,
    Bits12,
    Bits13,
    Bits14,
    Bits15,
}

/// As RFC 7692 7.1.2 writes them: decimal, without leading zeros.
const WINDOWS: [(&str, Window); 8] = [
    ("8", Window::Bits8),
    ("9", Window::Bits9),
    ("10", Window::Bits10),
    ("11", Window::Bits11),
    ("12", Window::Bits12),
    ("13", Window::Bits13),
    ("14", Window::Bits14),
    ("15", Window::Bits15),
];

impl Window {
    fn named(value: &Value<'_>) -> Option<Window> {
        WINDOWS.iter().find(|(text, _)| value.is(text)).map(|(_, window)| *window)
    }
}

/// The first offer that can be accepted, over all `Sec-WebSocket-Extensions` fields.
///
/// # Errors
///
/// If one of them breaks the grammar: then the connection "MUST" fail (RFC 6455 9.1), whatever else
/// was offered.
pub fn negotiate(request: &Request<'_, '_>) -> Result<Option<DeflateParams>, MalformedOffer> {
    let mut agreed = None;
    for field in request.values("sec-websocket-extensions") {
        let mut is_empty = true;
        for offer in offers(field) {
            is_empty = false;
            let answer = offer.and_then(answer)?;
            agreed = agreed.or(answer);
        }
        if is_empty {
            return Err(MalformedOffer);
        }
    }
    Ok(agreed)
}

/// Declines, with `None`, whatever 7.1 says "MUST" be declined; reads an offer to its end either
/// way, for its grammar.
fn answer(offer: Offer<'_>) -> Result<Option<DeflateParams>, MalformedOffer> {
    let mut is_acceptable = offer.name == b"permessage-deflate";
    let mut seen: [Option<Parameter<'_>>; 4] = [None; 4];
    for parameter in offer.parameters() {
        let parameter = parameter?;
        let (place, is_valid) = match (parameter.name, &parameter.value) {
            // 7.1.1.1 and 7.1.1.2: "an extension parameter without a value". We do both, asked or not.
            (b"server_no_context_takeover", None) => (0, true),
            (b"client_no_context_takeover", None) => (1, true),
            // 7.1.2.1: the value is needed; we honour each of them.
            (b"server_max_window_bits", Some(bits)) => (2, Window::named(bits).is_some()),
            // 7.1.2.2: with or without. We can look back as far as any client goes, so it may keep to
            // what it says here, and we ask for nothing less.
            (b"client_max_window_bits", None) => (3, true),
            (b"client_max_window_bits", Some(bits)) => (3, Window::named(bits).is_some()),
            _ => (0, false),
        };
        // "Contains multiple extension parameters with the same name."
        let is_repeated = seen[place].replace(parameter).is_some();
        is_acceptable &= is_valid && !is_repeated;
    }
    let server_window =
        seen[2].and_then(|parameter| parameter.value).and_then(|bits| Window::named(&bits));
    Ok(is_acceptable.then_some(DeflateParams { server_window }))
}

impl DeflateParams {
    /// Bytes that we may look back.
    pub(super) fn window_bytes(self) -> usize {
        1 << self.server_window.unwrap_or(Window::Bits15) as u8
    }

    /// Appends the field of the 101 that says what was agreed on.
    pub fn write_field(self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
              client_no_context_takeover",
        );
        // 7.1.2.1: an offer with this parameter is accepted by naming it.
        let agreed = |(_, window): &&(&str, Window)| Some(*window) == self.server_window;
        if let Some((bits, _)) = WINDOWS.iter().find(agreed) {
            out.extend_from_slice(b"; server_max_window_bits=");
            out.extend_from_slice(bits.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::head::header_slots;
    use super::*;
    use crate::protocol::limits::ProtocolLimits;

    /// That of a client that asks for nothing.
    pub(in super::super) fn params() -> DeflateParams {
        DeflateParams { server_window: None }
    }

    pub(in super::super) fn params_with_window(bits: u8) -> DeflateParams {
        DeflateParams { server_window: Some(WINDOWS[usize::from(bits) - 8].1) }
    }

    /// The response to these extension fields, without what is always the same.
    fn answered(fields: &[&str]) -> Result<Option<String>, MalformedOffer> {
        let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for field in fields {
            head += &format!("Sec-WebSocket-Extensions: {field}\r\n");
        }
        head += "\r\n";
        let mut slots = header_slots();
        let request =
            Request::parse(head.as_bytes(), &mut slots, &ProtocolLimits::FOR_TESTS).unwrap();
        Ok(negotiate(&request)?.map(|params| {
            let mut out = Vec::new();
            params.write_field(&mut out);
            let always = "Sec-WebSocket-Extensions: permessage-deflate; \
                          server_no_context_takeover; client_no_context_takeover";
            let line = String::from_utf8(out).unwrap();
            line.strip_prefix(always).unwrap().strip_suffix("\r\n").unwrap().to_owned()
        }))
    }

    #[test]
    fn offers_that_are_accepted() {
        for (offer, more) in [
            ("permessage-deflate", ""),
            // What Chromium, Firefox, `websockets` and `ws` send.
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate; client_max_window_bits=8", ""),
            ("permessage-deflate; client_max_window_bits=\"15\"", ""),
            ("permessage-deflate; server_no_context_takeover", ""),
            ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", ""),
            ("permessage-deflate; server_max_window_bits=8", "; server_max_window_bits=8"),
            ("permessage-deflate;server_max_window_bits=\"9\"", "; server_max_window_bits=9"),
            (
                "permessage-deflate; server_max_window_bits=15; client_max_window_bits=9; \
                 server_no_context_takeover; client_no_context_takeover",
                "; server_max_window_bits=15",
            ),
            // The first one that can be.
            ("x-made-up; a=b, permessage-deflate", ""),
            (
                "permessage-deflate; server_max_window_bits=7, permessage-deflate; \
                 server_max_window_bits=10, permessage-deflate",
                "; server_max_window_bits=10",
            ),
        ] {
            assert_eq!(answered(&[offer]), Ok(Some(more.to_owned())), "{offer}");
        }
        let two_fields = ["a, permessage-deflate; b", "permessage-deflate"];
        assert_eq!(answered(&two_fields), Ok(Some(String::new())));
    }

    #[test]
    fn offers_that_are_declined() {
        assert_eq!(answered(&[]), Ok(None));
        for offer in [
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate2",
            "permessage-deflate; unknown",
            "permessage-deflate; unknown=1",
            "permessage-deflate; Server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=\"010\"",
            "permessage-deflate; server_max_window_bits=999999999999999999999",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=1e1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ] {
            assert_eq!(answered(&[offer]), Ok(None), "{offer}");
        }
    }

    #[test]
    fn a_field_that_breaks_the_grammar_fails_the_handshake() {
        for fields in [
            &[""][..],
            &[","],
            &[";;=,\""],
            &["permessage-deflate; client_max_window_bits="],
            &["permessage-deflate, x; a=\"1, 2\""],
            &["permessage-deflate", "permessage deflate"],
        ] {
            assert_eq!(answered(fields), Err(MalformedOffer), "{fields:?}");
        }
    }

    #[test]
    fn it_costs_a_connection_one_byte() {
        assert_eq!(size_of::<Option<DeflateParams>>(), 1);
    }
}
