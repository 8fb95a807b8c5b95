//! The cases of size: Autobahn's groups 9 and 10, in sizes that a test has time for, and the limit
//! for a message.

use crate::case::{Case, case};
use crate::cases::letters;
use crate::wire::{
    BINARY, CONTINUE, FIN, LONG_HEADER, MEDIUM_HEADER, SHORT_HEADER, TEXT, binary, fragments,
    frame, header, ping, text,
};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [sizes(), limits()].concat()
}

/// Autobahn's groups 9 and 10, in sizes that a test has time for.
fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, size) in [64 << 10, 256 << 10, 1 << 20].into_iter().enumerate() {
        let (n, letters) = (number + 1, letters(size));
        let what = format!("{} KiB at once", size >> 10);
        cases.push(case(format!("9.1.{n}"), "5.6", &what).echoes_text(&letters));
        cases.push(case(format!("9.2.{n}"), "5.6", what).echoes_binary(letters.as_bytes()));
    }
    let large = letters(64 << 10);
    for (number, size) in [64, 256, 1 << 10, 4 << 10, 16 << 10].into_iter().enumerate() {
        let n = number + 1;
        let what = format!("64 KiB in fragments of {size}");
        let pieces = || large.as_bytes().chunks(size);
        cases.push(
            case(format!("9.3.{n}"), "5.4", &what)
                .sends_all(fragments(TEXT, pieces()))
                .hears_text(&large),
        );
        cases.push(
            case(format!("9.4.{n}"), "5.4", what)
                .sends_all(fragments(BINARY, pieces()))
                .hears_binary(large.as_bytes()),
        );
    }
    for (number, size) in [0, 16, 64, 256].into_iter().enumerate() {
        let (n, letters) = (number + 1, letters(size));
        let what = format!("200 messages of {size}");
        let texts = case(format!("9.7.{n}"), "5.6", &what);
        cases.push((0..200).fold(texts, |case, _| case.echoes_text(&letters)));
        let binaries = case(format!("9.8.{n}"), "5.6", what);
        cases.push((0..200).fold(binaries, |case, _| case.echoes_binary(letters.as_bytes())));
    }
    cases.push(
        case("10.1.1", "5.4", "64 KiB in fragments of 1300")
            .sends_all(fragments(TEXT, large.as_bytes().chunks(1300)))
            .hears_text(large),
    );
    cases
}

/// A limit for a message, at its edge and at the header that passes it.
fn limits() -> Vec<Case> {
    let begin = |number: u8, what: &str| case(format!("limit.{number}"), "10.4", what).limit(1000);
    let full = [7; 1000];
    vec![
        begin(1, "a message of just the limit").echoes_binary(&full),
        begin(2, "a message of one more, refused at its header").breaks(
            1009,
            binary([7; 1001]),
            MEDIUM_HEADER,
        ),
        begin(3, "fragments that sum up to the limit")
            .sends_all(fragments(BINARY, [&full[..600], &full[600..], b""]))
            .hears_binary(full),
        begin(4, "fragments that sum up to one more, refused at the header that does it")
            .sends(frame(BINARY, &full[..600]))
            .breaks(1009, frame(CONTINUE, [7; 401]), MEDIUM_HEADER),
        begin(5, "a full message, and one more byte of it in a fragment")
            .sends(frame(TEXT, [b'x'; 1000]))
            .breaks(1009, frame(FIN | CONTINUE, "x"), SHORT_HEADER),
        begin(6, "a length of 2^62 is announced").breaks(
            1009,
            header(FIN | BINARY, &[127, 0x40, 0, 0, 0, 0, 0, 0, 0]),
            LONG_HEADER,
        ),
        begin(7, "the largest length there is, behind a fragment")
            .sends(frame(BINARY, "a"))
            .breaks(
                1009,
                header(CONTINUE, &[127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
                LONG_HEADER,
            ),
        begin(8, "each message counts anew")
            .echoes_binary(&full)
            .sends_all(fragments(BINARY, full.chunks(300)))
            .hears_binary(full)
            .echoes_binary(&full),
        begin(9, "a limit below 125 is none for control frames")
            .limit(16)
            .sends(ping([7; 125]))
            .hears_pong([7; 125])
            .breaks(1009, text("seventeen letters"), SHORT_HEADER),
    ]
}
