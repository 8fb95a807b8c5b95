//! The cases of UTF-8, Autobahn's group 6: sequences that are, and that are not, each as one
//! frame and as fragments of one byte. What is wrong has to be noticed at the first byte with
//! which it cannot become right any more.

use crate::case::{Case, case};
use crate::wire::{FIN, SHORT_HEADER, TEXT, fragments, frame, ping, text};

/// Autobahn's word: characters of two and of three bytes, eleven in all.
const KOSME: &str = "κ\u{1f79}σμε";

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![
        case("6.1.1", "8.1", "empty").echoes_text(""),
        case("6.1.2", "8.1", "three empty fragments")
            .sends_all(fragments(TEXT, [&b""[..]; 3]))
            .hears_text(""),
        case("6.1.3", "8.1", "a fragment between two empty ones")
            .sends_all(fragments(TEXT, [&b""[..], b"middle frame payload", b""]))
            .hears_text("middle frame payload"),
    ];
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!";
    cases.extend(right("6.2.1", greeting.as_bytes()));
    cases.push(
        case("6.2.2", "8.1", "cut between two characters")
            .sends_all(fragments(TEXT, [&greeting.as_bytes()[..12], &greeting.as_bytes()[12..]]))
            .hears_text(greeting),
    );
    cases.extend(right("6.2.4", KOSME.as_bytes()));
    cases.extend(wrong("6.3.1", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"));
    cases.extend(fail_fast());
    cases.extend(splits());
    // Every beginning of a word; whether it is whole depends on where it ends.
    for end in 1..=KOSME.len() {
        cases.extend(either(&format!("6.6.{end}"), &KOSME.as_bytes()[..end]));
    }
    for (group, sequences) in GROUPS {
        for (number, sequence) in sequences.iter().enumerate() {
            cases.extend(either(&format!("6.{group}.{}", number + 1), sequence));
        }
    }
    // The last two code points of each of the 17 planes are no characters, and yet UTF-8.
    for plane in 0..17u32 {
        for last in [0xfffe, 0xffff] {
            let number = plane * 2 + last - 0xfffd;
            let character = char::from_u32(plane << 16 | last).expect("no surrogate");
            cases.extend(right(&format!("6.22.{number}"), character.to_string().as_bytes()));
        }
    }
    cases.extend(lonely_starts());
    cases
}

/// Autobahn's groups of sequences. Whether one is UTF-8 is for [`either`] to say; as the comments
/// have it.
const GROUPS: [(u8, &[&[u8]]); 15] = [
    // The first of each length.
    (7, &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
    // The first of five and six bytes, which there are no longer.
    (8, &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    // The last of each length.
    (9, &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    // The last of what four, five and six bytes once could say.
    (10, &[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
    // Around the surrogates and at the end: right, right, right, right, beyond.
    (
        11,
        &[
            b"\xed\x9f\xbf",
            b"\xee\x80\x80",
            b"\xef\xbf\xbd",
            b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
        ],
    ),
    // Continuations of nothing.
    (
        12,
        &[
            b"\x80",
            b"\xbf",
            b"\x80\xbf",
            b"\x80\xbf\x80",
            b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80",
            b"\x80\xbf\x80\xbf\x80\xbf",
            b"\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x9f\xa0\xbf",
        ],
    ),
    // The last byte is missing.
    (
        14,
        &[
            b"\xc0",
            b"\xe0\x80",
            b"\xf0\x80\x80",
            b"\xf8\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80",
            b"\xdf",
            b"\xef\xbf",
            b"\xf7\xbf\xbf",
            b"\xfb\xbf\xbf\xbf",
            b"\xfd\xbf\xbf\xbf\xbf",
        ],
    ),
    // Those, one behind the other.
    (
        15,
        &[b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\
            \xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf"],
    ),
    // Bytes that never occur.
    (16, &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    // A slash, in more bytes than it needs.
    (
        17,
        &[
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ],
    ),
    // The largest of each length that needs fewer bytes.
    (
        18,
        &[
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ],
    ),
    // NUL, in more bytes than it needs.
    (
        19,
        &[
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ],
    ),
    // Surrogates, which are for UTF-16.
    (
        20,
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
    // In pairs they are no better.
    (
        21,
        &[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ],
    ),
    // The specials, replacement character and all: right.
    (
        23,
        &[
            b"\xef\xbf\xb9",
            b"\xef\xbf\xba",
            b"\xef\xbf\xbb",
            b"\xef\xbf\xbc",
            b"\xef\xbf\xbd",
            b"\xef\xbf\xbe",
            b"\xef\xbf\xbf",
        ],
    ),
];

/// Where a sequence stops being the beginning of UTF-8: after how many bytes, or at its end
/// because something is missing; `None` if it is UTF-8.
enum Flaw {
    AtByte(usize),
    AtEnd,
}

fn flaw(sequence: &[u8]) -> Option<Flaw> {
    if std::str::from_utf8(sequence).is_ok() {
        return None;
    }
    // The shortest part that nothing could complete.
    let is_hopeless = |&count: &usize| {
        std::str::from_utf8(&sequence[..count]).is_err_and(|error| error.error_len().is_some())
    };
    Some((1..=sequence.len()).find(is_hopeless).map_or(Flaw::AtEnd, Flaw::AtByte))
}

fn either(id: &str, sequence: &[u8]) -> [Case; 2] {
    if flaw(sequence).is_some() { wrong(id, sequence) } else { right(id, sequence) }
}

fn right(id: &str, sequence: &[u8]) -> [Case; 2] {
    let text = std::str::from_utf8(sequence).expect("UTF-8");
    let what = format!("{sequence:x?} is UTF-8");
    [
        case(format!("{id}/whole"), "8.1", &what).echoes_text(text),
        case(format!("{id}/bytes"), "8.1", &what)
            .sends_all(fragments(TEXT, sequence.chunks(1)))
            .hears_text(text),
    ]
}

fn wrong(id: &str, sequence: &[u8]) -> [Case; 2] {
    let flaw = flaw(sequence).expect("not UTF-8");
    let what = format!("{sequence:x?} is not UTF-8");
    // In one frame a byte stands behind the header; in fragments, at the end of one of its own.
    let nth = match flaw {
        Flaw::AtByte(count) => count,
        Flaw::AtEnd => sequence.len(),
    };
    let pieces = fragments(TEXT, sequence.chunks(1));
    let (before, rest) = pieces.split_at(nth - 1);
    let (breaking, behind) = rest.split_first().expect("there is one");
    [
        case(format!("{id}/whole"), "8.1", &what).breaks(1007, text(sequence), SHORT_HEADER + nth),
        case(format!("{id}/bytes"), "8.1", &what)
            .sends_all(before.to_vec())
            .breaks_when_whole(1007, breaking)
            .then(behind.concat()),
    ]
}

/// 6.4: the byte after which all is lost is the last one that the client has to send.
fn fail_fast() -> Vec<Case> {
    let (good, behind) = (KOSME.as_bytes(), &b"edited"[..]);
    let bad = &b"\xf4\x90\x80\x80"[..];
    let rest = fragments(TEXT, [good, bad, behind])[2..].concat();
    vec![
        case("6.4.1", "8.1", "the second of three fragments is wrong")
            .sends(frame(TEXT, good))
            .breaks(1007, frame(0, bad), SHORT_HEADER + 2)
            .then(&rest),
        case("6.4.2", "8.1", "of the second fragment there is no more than what is wrong")
            .sends(frame(TEXT, good))
            .breaks_when_whole(1007, frame(0, &bad[..2])),
        case("6.4.3", "8.1", "one frame, wrong in the middle").breaks(
            1007,
            text([good, bad, behind].concat()),
            SHORT_HEADER + good.len() + 2,
        ),
        case("6.4.4", "8.1", "a character is begun in one fragment and spoilt in the next")
            .sends(frame(TEXT, [good, b"\xf4"].concat()))
            .breaks(1007, frame(0, b"\x90\x80\x80"), SHORT_HEADER + 1),
    ]
}

/// A word cut in two at each of its bytes, also with a ping at the cut.
fn splits() -> Vec<Case> {
    let halves = |at| KOSME.as_bytes().split_at(at);
    (0..=KOSME.len())
        .flat_map(|at| {
            let (left, right) = halves(at);
            let id = format!("6.5.{}", at + 1);
            [
                case(format!("{id}/two"), "8.1", format!("cut after {at} bytes"))
                    .sends_all(fragments(TEXT, [left, right]))
                    .hears_text(KOSME),
                case(format!("{id}/ping"), "8.1", format!("a ping after {at} bytes"))
                    .sends(frame(TEXT, left))
                    .sends(ping("κ"))
                    .hears_pong("κ")
                    .sends(frame(FIN, right))
                    .hears_text(KOSME),
            ]
        })
        .collect()
}

/// 6.13: bytes that begin a character of two, three, four, five and six bytes, each before a
/// space.
fn lonely_starts() -> Vec<Case> {
    let ranges = [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd];
    let spaced = |range: std::ops::RangeInclusive<u8>| -> Vec<u8> {
        range.flat_map(|start| [start, b' ']).collect()
    };
    (1..)
        .zip(ranges)
        .flat_map(|(number, range)| wrong(&format!("6.13.{number}"), &spaced(range)))
        .collect()
}
