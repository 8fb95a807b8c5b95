//! The cases of closing, Autobahn's group 7: the client's Close in all its forms, what stands
//! behind it, and our own Close before it.

use crate::case::{Case, case};
use crate::cases::letters;
use crate::wire::{CLOSE, CONTINUE, FIN, RSV1, TEXT, binary, close, fragments, frame, ping, text};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [by_the_client(), by_us_first()].concat()
}

/// Autobahn's group 7.
fn by_the_client() -> Vec<Case> {
    let mut cases = vec![
        case("7.1.1", "5.5.1", "a message, then a Close")
            .echoes_text("Hello World!")
            .closes(close(1000, ""), Some(1000)),
        case("7.1.2", "5.5.1", "two Closes")
            .closes(close(1000, ""), Some(1000))
            .then(close(1000, "")),
        case("7.1.3", "5.5.1", "a ping behind a Close")
            .closes(close(1000, ""), Some(1000))
            .then(ping("")),
        case("7.1.4", "5.5.1", "a message behind a Close")
            .closes(close(1000, ""), Some(1000))
            .then(text("Hello World!")),
        case("7.1.5", "5.5.1", "a Close between two fragments")
            .sends(frame(TEXT, "fragment1"))
            .closes(close(1000, ""), Some(1000))
            .then(frame(FIN | CONTINUE, "fragment2")),
        case("7.1.6", "5.5.1", "256 KiB, a message, a Close, a ping")
            .echoes_text(&letters(256 << 10))
            .echoes_text("Hello World!")
            .closes(close(1000, ""), Some(1000))
            .then(ping("")),
        case("close.1", "5.5.1", "nonsense behind a Close")
            .closes(close(1000, ""), Some(1000))
            .then([0xff; 100]),
        case("7.3.1", "5.5.1", "an empty Close").closes(frame(FIN | CLOSE, ""), None),
        case("7.3.2", "5.5.1", "a Close of one byte")
            .breaks_when_whole(1002, frame(FIN | CLOSE, [0x03])),
        case("7.3.3", "5.5.1", "a Close with a code").closes(close(1000, ""), Some(1000)),
        case("7.3.4", "5.5.1", "a Close with code and reason")
            .closes(close(1000, "Hello World!"), Some(1000)),
        case("7.3.5", "5.5.1", "a reason of 123 bytes")
            .closes(close(1000, "*".repeat(123)), Some(1000)),
        case("7.3.6", "5.5", "a reason of 124 bytes").breaks(1002, close(1000, "*".repeat(124)), 2),
        case("7.5.1", "8.1", "a reason that is not UTF-8").breaks_when_whole(
            1007,
            close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
        ),
        case("close.2", "8.1", "a reason that ends inside a character")
            .breaks_when_whole(1007, close(1000, b"\xe2\x82")),
        case("close.3", "8.1", "a reason of many scripts")
            .closes(close(1000, "κόσμε, 世界, 😀"), Some(1000)),
    ];
    // RFC 6455 7.4.1 and the registry it set up (1012 to 1014); 3000 to 4999 are anyone's.
    let good = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013,
        1014,
    ];
    for (number, code) in good.into_iter().enumerate() {
        let id = format!("7.7.{}", number + 1);
        let clause = if code < 3000 { "7.4.1" } else { "7.4.2" };
        cases.push(case(id, clause, format!("code {code}")).closes(close(code, ""), Some(code)));
    }
    // 1004 is reserved; 1005, 1006 and 1015 are for those who saw no Close.
    for (number, code) in
        [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015].into_iter().enumerate()
    {
        let id = format!("7.9.{}", number + 1);
        let clause = if matches!(code, 1000..=1015) { "7.4.1" } else { "7.4.2" };
        let wrong = close(code, "");
        cases.push(case(id, clause, format!("code {code}")).breaks_when_whole(1002, wrong));
    }
    for (number, code) in [5000, 65_535].into_iter().enumerate() {
        let id = format!("7.13.{}", number + 1);
        let wrong = close(code, "");
        cases.push(case(id, "7.4.2", format!("code {code}")).breaks_when_whole(1002, wrong));
    }
    cases
}

/// Our own Close comes first: what is still in flight is read past, for the client's.
fn by_us_first() -> Vec<Case> {
    let begin = |number: u8, what: &str| {
        case(format!("close-first.{number}"), "7.1.1", what).after_the_servers_close()
    };
    vec![
        begin(1, "the client answers").closes(close(1001, ""), None),
        begin(2, "the client answers with another code").closes(close(1000, "bye"), None),
        begin(3, "the client answers without a code").closes(frame(FIN | CLOSE, ""), None),
        begin(4, "messages in flight before the answer")
            .sends(text("on its way"))
            .sends(binary([1; 300]))
            .sends_all(fragments(TEXT, [&b"a"[..], b"b"]))
            .closes(close(1001, ""), None)
            .then(text("and more")),
        begin(5, "half a message in flight before the answer")
            .sends(frame(TEXT, "never to be continued"))
            .closes(close(1001, ""), None),
        begin(6, "a rule is broken instead").breaks_silently(frame(FIN | RSV1 | TEXT, "a"), 1),
        begin(7, "no answer yet").sends(text("on its way")),
    ]
}
