//! The cases of permessage-deflate (RFC 7692), in place of Autobahn's groups 12 and 13, whose loads
//! are too heavy for here. Everything sent is deflated by hand, or in the RFC's own examples.

use crate::case::{Case, case};
use crate::cases::letters;
use crate::wire::{
    BINARY, CLOSE, CONTINUE, FIN, MEDIUM_HEADER, PING, PONG, RSV1, RSV2, RSV3, SHORT_HEADER, TEXT,
    binary, bomb, close, deflated, frame, ping, text,
};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [negotiation(), windows(), framing(), ours(), theirs(), limits()].concat()
}

/// What is agreed to whenever anything is: neither side keeps its context (7.1.1).
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What browsers offer.
const USUAL: &str = "permessage-deflate; client_max_window_bits";

/// "Hello" as RFC 7692 7.2.3.1 compresses it.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// A whole deflated message.
fn packed(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | RSV1 | opcode, payload)
}

/// The client offers this; the server agrees to that, or to nothing.
fn offer(id: String, clause: &'static str, offer: &str, agreed: Option<&str>) -> Case {
    let verdict = if agreed.is_some() { "taken" } else { "declined" };
    let case = case(id, clause, format!("{offer:?} is {verdict}")).with_offer(offer, agreed);
    match agreed {
        Some(_) => case.sends(packed(TEXT, HELLO)).hears_text("Hello").echoes_text("plain"),
        None => case.echoes_text("plain").breaks(1002, packed(TEXT, HELLO), 1),
    }
}

fn negotiation() -> Vec<Case> {
    let taken = [
        "permessage-deflate",
        USUAL,
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate;server_no_context_takeover ; client_no_context_takeover",
        "x-made-up; a=b, permessage-deflate",
        "permessage-deflate; unknown, permessage-deflate",
        "permessage-deflate; a=b\r\nSec-WebSocket-Extensions: permessage-deflate",
    ];
    let declined = [
        "x-made-up",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ];
    let taken = taken.map(|text| (text, Some(AGREED)));
    let offers = taken.into_iter().chain(declined.map(|text| (text, None)));
    let mut cases: Vec<_> = offers
        .enumerate()
        .map(|(at, (text, agreed))| offer(format!("offer.{}", at + 1), "7692 7.1", text, agreed))
        .collect();
    cases.push(
        case("offer.15", "7692 7.1", "nothing is offered")
            .without_offer()
            .echoes_text("plain")
            .breaks(1002, packed(TEXT, HELLO), 1),
    );
    // RFC 6455 9.1: who receives what breaks the grammar "MUST" fail the connection.
    let malformed = ["permessage-deflate;", "permessage-deflate; a=\"1, 2\"", ";;=,\"", ","];
    cases.extend(malformed.iter().enumerate().map(|(at, text)| {
        let what = format!("{text:?} breaks the grammar");
        case(format!("offer.{}", 16 + at), "7692 7.1", what)
            .with_offer(text, None)
            .refused_with(400, "\r\nConnection: close\r\n")
    }));
    cases
}

/// The window that the client asks us to keep to, and the one that it says it has itself.
fn windows() -> Vec<Case> {
    let message = letters(70_000);
    let mut cases = Vec::new();
    for bits in 8..=15 {
        let asked = format!("permessage-deflate; server_max_window_bits={bits}");
        let agreed = format!("{AGREED}; server_max_window_bits={bits}");
        let case = offer(format!("window.{}", bits - 7), "7692 7.1.2", &asked, Some(&agreed));
        // As many windows as we deflate of one message, and not one more.
        let size = message.len().min(32 << bits);
        let case = case.sends(text(&message[..size])).hears_deflated(&message[..size]);
        cases.push(match size < message.len() {
            true => case.sends(text(&message[..=size])).hears_text(&message[..=size]),
            false => case,
        });
    }
    for (at, bits) in ["", "=8", "=9", "=15", "=\"12\""].into_iter().enumerate() {
        let own = format!("permessage-deflate; client_max_window_bits{bits}");
        let id = format!("window.{}", 9 + at);
        cases.push(offer(id, "7692 7.1.2", &own, Some(AGREED)));
    }
    let mut number = 13;
    for parameter in ["server_max_window_bits", "client_max_window_bits"] {
        for bits in ["=7", "=16", "=08", "=+9", "=1e1", "=-1", "=99999999999999999999"] {
            number += 1;
            let text = format!("permessage-deflate; {parameter}{bits}");
            cases.push(offer(format!("window.{number}"), "7692 7.1.2", &text, None));
        }
    }
    let text = "permessage-deflate; server_max_window_bits";
    cases.push(offer(format!("window.{}", number + 1), "7692 7.1.2", text, None));
    cases
}

/// A case of a connection that deflates.
fn deflating(id: &str, clause: &'static str, what: impl Into<String>) -> Case {
    case(id, clause, what).with_offer(USUAL, Some(AGREED))
}

fn framing() -> Vec<Case> {
    let begin = |number: u8, what: &str| deflating(&format!("rsv1.{number}"), "7692 6", what);
    let [first, second, third] = [&HELLO[..2], &HELLO[2..5], &HELLO[5..]];
    vec![
        begin(1, "a deflated text and a deflated binary message")
            .sends(packed(TEXT, HELLO))
            .hears_text("Hello")
            .sends(packed(BINARY, HELLO))
            .hears_binary(*b"Hello"),
        begin(2, "plain messages and deflated ones in turn")
            .echoes_text("plain")
            .sends(packed(TEXT, HELLO))
            .hears_text("Hello")
            .echoes_binary(b"plain"),
        begin(3, "in three fragments, control frames in between")
            .sends(frame(RSV1 | TEXT, first))
            .sends(ping("1"))
            .hears_pong("1")
            .sends(frame(CONTINUE, second))
            .sends(frame(FIN | PONG, ""))
            .sends(frame(FIN | CONTINUE, third))
            .hears_text("Hello"),
        begin(4, "in fragments of a byte, and empty ones before, between and behind")
            .sends(frame(RSV1 | BINARY, ""))
            .sends_all(HELLO.map(|byte| [frame(CONTINUE, [byte]), frame(CONTINUE, "")].concat()))
            .sends(frame(FIN | CONTINUE, ""))
            .hears_binary(*b"Hello"),
        begin(5, "on a continuation").sends(frame(RSV1 | TEXT, first)).breaks(
            1002,
            frame(FIN | RSV1 | CONTINUE, [second, third].concat()),
            1,
        ),
        begin(6, "on the continuation of a plain message").sends(frame(TEXT, "He")).breaks(
            1002,
            frame(FIN | RSV1 | CONTINUE, HELLO),
            1,
        ),
        begin(7, "on a ping").breaks(1002, frame(FIN | RSV1 | PING, ""), 1),
        begin(8, "on a pong").breaks(1002, frame(FIN | RSV1 | PONG, ""), 1),
        begin(9, "on a Close").breaks(1002, frame(FIN | RSV1 | CLOSE, ""), 1),
        begin(10, "on a ping inside a deflated message").sends(frame(RSV1 | TEXT, first)).breaks(
            1002,
            frame(FIN | RSV1 | PING, ""),
            1,
        ),
        begin(11, "RSV2 beside it").breaks(1002, frame(FIN | RSV1 | RSV2 | TEXT, HELLO), 1),
        begin(12, "RSV3 beside it").breaks(1002, frame(FIN | RSV1 | RSV3 | TEXT, HELLO), 1),
        begin(13, "RSV2 in its place").breaks(1002, frame(FIN | RSV2 | TEXT, HELLO), 1),
        begin(14, "on a reserved opcode").breaks(1002, frame(FIN | RSV1 | 0x3, HELLO), 1),
        begin(15, "a message inside a deflated one").sends(frame(RSV1 | TEXT, first)).breaks(
            1002,
            packed(TEXT, HELLO),
            SHORT_HEADER,
        ),
        begin(16, "a Close between two fragments")
            .sends(frame(RSV1 | TEXT, first))
            .closes(close(1000, ""), Some(1000)),
        begin(17, "deflated messages after our own Close")
            .after_the_servers_close()
            .sends(packed(TEXT, HELLO))
            .sends(packed(TEXT, bomb(10_000)))
            .closes(close(1001, ""), None),
    ]
}

/// What we deflate, and what we do not.
fn ours() -> Vec<Case> {
    let begin = |number: u8, what: &str| deflating(&format!("ours.{number}"), "7692 7.2.1", what);
    let (short, long, large) = (letters(1023), letters(1024), letters(1 << 20));
    // The high bytes of a product: DEFLATE finds nothing in them.
    let noise: Vec<u8> = (1..=4000u64)
        .map(|n| {
            (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 17)).wrapping_mul(n | 1).to_be_bytes()[1]
        })
        .collect();
    vec![
        begin(1, "a short message goes plain").echoes_text(&short),
        begin(2, "a longer one deflated").sends(text(&long)).hears_deflated(&long),
        begin(3, "a MiB deflated").sends(text(&large)).hears_deflated(&large),
        begin(4, "more than a MiB plain").echoes_text(&letters((1 << 20) + 1)),
        begin(5, "a deflated one that is deflated again")
            .sends(packed(TEXT, deflated(&long)))
            .hears_deflated(long),
        begin(6, "what does not shrink goes plain").echoes_binary(&noise),
        begin(7, "an empty one goes plain").echoes_text(""),
        begin(8, "a deflated empty one comes back empty")
            .sends(packed(TEXT, [0x00]))
            .hears_text(""),
    ]
}

/// What is DEFLATE, and what is not.
fn theirs() -> Vec<Case> {
    let mut cases = Vec::new();
    let good: [(&str, &[u8]); 6] = [
        ("one block (7.2.3.1)", &HELLO),
        ("a block that stores (7.2.3.3)", b"\0\x05\0\xfa\xffHello\0"),
        ("a last block (7.2.3.4)", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        (
            "two blocks and a flush between (7.2.3.5)",
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ),
        (
            "a last block, an empty last block, and nothing (7.2.1)",
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x03, 0x00, 0x00],
        ),
        (
            "flushed twice over (7.2.1)",
            b"\0\0\0\xff\xff\0\0\0\xff\xff\0\x05\0\xfa\xffHello\0\0\0\xff\xff\0",
        ),
    ];
    for (what, message) in good {
        let id = format!("theirs.{}", cases.len() + 1);
        let case = deflating(&id, "7692 7.2.2", what);
        cases.push(case.sends(packed(TEXT, message)).hears_text("Hello"));
    }
    let bad: [(&str, &[u8]); 9] = [
        ("no DEFLATE", b"Hello"),
        ("nothing at all, which is not how an empty message looks (7.2.3.6)", b""),
        ("a block type that there is none of", &[0x06, 0x00]),
        ("a look back over the beginning", &[0xf2, 0x00, 0x11, 0x00, 0x00]),
        ("cut short", &HELLO[..5]),
        ("without its last byte", &HELLO[..6]),
        ("with a byte too many", b"\xf2H\xcd\xc9\xc9\x07\0\x01"),
        ("with the four bytes that are left out", b"\xf2H\xcd\xc9\xc9\x07\0\0\0\xff\xff"),
        ("a look back over the end of a last block", b"\xf3H\xcd\xc9\xc9\x07\0\xf2\0\x11\0\0"),
    ];
    for (what, message) in bad {
        let id = format!("theirs.{}", cases.len() + 1);
        let case = deflating(&id, "7692 7.2.2", what);
        let case = case.sends(packed(TEXT, HELLO)).hears_text("Hello");
        cases.push(case.breaks_when_whole(1007, packed(BINARY, message)));
    }
    // The context of a message ends with it, also when the next could use it (7.2.3.2).
    let context = deflating("theirs.16", "7692 7.2.2", "a look back into the last message");
    let context = context.sends(packed(TEXT, HELLO)).hears_text("Hello");
    cases.push(context.breaks_when_whole(1007, packed(TEXT, [0xf2, 0x00, 0x11, 0x00, 0x00])));
    let sizes = [(17, 1), (18, 125), (19, 65_535), (20, 65_536), (21, 300_000)];
    for (number, size) in sizes {
        let message = letters(size);
        let id = format!("theirs.{number}");
        let case = deflating(&id, "7692 7.2.2", format!("{size} bytes"));
        let case = case.sends(packed(TEXT, deflated(&message)));
        cases.push(match size < 1024 {
            true => case.hears_text(message),
            false => case.hears_deflated(message),
        });
    }
    let text_cases: [(&str, &[u8]); 3] = [
        ("that is not UTF-8", b"\xff"),
        ("that ends inside a character", b"\xe2\x82"),
        ("with a surrogate", b"\xed\xa0\x80"),
    ];
    for (at, (what, text)) in text_cases.into_iter().enumerate() {
        let case =
            deflating(&format!("utf8-deflated.{}", at + 1), "8.1", format!("deflated text {what}"));
        let case = case.sends(packed(BINARY, deflated(text))).hears_binary(text);
        cases.push(case.breaks_when_whole(1007, packed(TEXT, deflated(text))));
    }
    cases
}

/// The limit is one for what a message is, and not for how it came.
fn limits() -> Vec<Case> {
    let begin = |number: u8, what: &str| {
        deflating(&format!("limit-deflated.{number}"), "10.4", what).limit(1000)
    };
    let full = letters(1000);
    vec![
        begin(1, "a deflated message of just the limit, larger than that on the wire")
            .sends(packed(TEXT, deflated(&full)))
            .hears_text(&full),
        begin(2, "one of one more").breaks_when_whole(1009, packed(TEXT, deflated(letters(1001)))),
        begin(3, "a small one that inflates to more than the limit")
            .breaks_when_whole(1009, packed(TEXT, bomb(4))),
        deflating("limit-deflated.4", "10.4", "100 KiB that inflate to more than 16 MiB")
            .breaks_when_whole(1009, packed(BINARY, bomb((16 << 20) / 258 + 1))),
        begin(5, "more on the wire than the limit could have become: refused at the header")
            .breaks(1009, packed(TEXT, [0; 1190]), MEDIUM_HEADER),
        begin(6, "the same in fragments").sends(frame(RSV1 | BINARY, [0; 600])).breaks(
            1009,
            frame(CONTINUE, [0; 590]),
            MEDIUM_HEADER,
        ),
        begin(7, "a plain one still counts as it comes").breaks(
            1009,
            binary([7; 1001]),
            MEDIUM_HEADER,
        ),
    ]
}
