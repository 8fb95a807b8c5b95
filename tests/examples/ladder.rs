//! The ladder: each step does what it claims, shows the defect that the next one mends, and says
//! where `src/` answers the rest.
//!
//! That something is *not* answered is shown by counting: whoever is served meanwhile has had turn
//! after turn of the one thread there is. Nothing here waits for time to pass.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Message, WebSocket};

use super::super::{Example, PATIENCE};

const STEPS: [&str; 7] = [
    "01_blocking_echo",
    "02_tiny_loop",
    "03_slab_of_connections",
    "04_edge_triggered_and_fair",
    "05_frames_in_place",
    "06_deadlines_and_last_words",
    "07_two_loops",
];

/// Time after which a connection has been silent for too long, where a test waits for that.
const SILENCE_MS: &str = "1000";

/// Says it, and waits until all of it has come back.
#[track_caller]
fn round_trip(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
    assert_eq!(hear(client, text.len()), text);
}

#[track_caller]
fn hear(client: &mut TcpStream, bytes: usize) -> String {
    let mut heard = vec![0; bytes];
    client.read_exact(&mut heard).unwrap();
    String::from_utf8(heard).unwrap()
}

/// What has come so far, without waiting.
fn heard_so_far(client: &mut TcpStream) -> String {
    client.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    let end = client.read_to_end(&mut heard).expect_err("it is still open").kind();
    assert_eq!(end, ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    String::from_utf8(heard).unwrap()
}

/// Leaves in a way that is an error to the server: with a reset, for there is something unread.
fn reset(mut client: TcpStream) {
    client.write_all(b"bye").unwrap();
    assert_eq!(client.peek(&mut [0]).unwrap(), 1);
}

#[test]
fn step_1_answers_one_and_lets_the_others_wait() {
    let example = Example::start(STEPS[0]);
    let mut first = example.dial();
    round_trip(&mut first, "grüezi");
    let mut second = example.dial();
    second.write_all(b"me too").unwrap();
    for _ in 0..100 {
        round_trip(&mut first, "still here");
    }
    assert_eq!(heard_so_far(&mut second), "");
    reset(first);
    assert_eq!(hear(&mut second, 6), "me too");
    reset(second);
    round_trip(&mut example.dial(), "and on");
}

#[test]
fn step_2_answers_all_and_cuts_off_who_does_not_read() {
    let example = Example::start(STEPS[1]);
    let mut clients = [example.dial(), example.dial(), example.dial()];
    for round in ["one", "two", "three"] {
        for client in &mut clients {
            round_trip(client, round);
        }
    }
    let [deaf, mut other, leaving] = clients;
    reset(leaving);
    let end = say_without_reading(deaf);
    assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end:?}");
    round_trip(&mut other, "still here");
}

/// Says more than all buffers on the way hold; returns what came of it.
fn say_without_reading(mut client: TcpStream) -> ErrorKind {
    let chunk = [b'x'; 64 << 10];
    (0..1024)
        .find_map(|_| client.write_all(&chunk).err())
        .expect("64 MiB do not fit into a socket")
        .kind()
}

#[test]
fn step_3_keeps_what_the_socket_does_not_take() {
    let example = Example::start(STEPS[2]);
    let mut slow = example.dial();
    let mut other = example.dial();
    let said: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    let mut writing = slow.try_clone().unwrap();
    let speech = said.clone();
    let speaker = thread::spawn(move || writing.write_all(&speech));
    for _ in 0..100 {
        round_trip(&mut other, "not held up");
    }
    reset(other);
    let mut heard = vec![0; said.len()];
    slow.read_exact(&mut heard).unwrap();
    assert!(heard == said, "every byte comes back, in order");
    speaker.join().unwrap().unwrap();
    round_trip(&mut example.dial(), "and on");
}

/// More than a few shares of 8 bytes.
const LONG: &str = "hello, event loop: a share of this is eight bytes, and there are many";

/// Has `bystander` served for more turns than `LONG` has shares. The loop has one thread, so each
/// of these answers is a turn in which somebody who was ready would have been served as well.
fn pass_turns(bystander: &mut TcpStream) {
    for _ in 0..100 {
        round_trip(bystander, "turn");
    }
}

#[test]
fn step_4_serves_a_long_line_share_by_share() {
    let example = Example::start(STEPS[3]);
    let (mut client, mut bystander) = (example.dial(), example.dial());
    round_trip(&mut client, "hi");
    client.write_all(LONG.as_bytes()).unwrap();
    pass_turns(&mut bystander);
    assert_eq!(hear(&mut client, LONG.len()), LONG);
    reset(client);
    pass_turns(&mut bystander);
}

#[test]
fn step_4_loses_the_wakeup_when_it_is_told_to() {
    let example = Example::start_with(STEPS[3], &["lose-wakeups"]);
    let (mut client, mut bystander) = (example.dial(), example.dial());
    // So that the edge of the fresh socket is behind us: it would be worth a share of its own.
    round_trip(&mut client, "hi");
    client.write_all(LONG.as_bytes()).unwrap();
    // The first share; what has had its edge after it is forgotten, however many turns there are.
    let mut heard = hear(&mut client, 6);
    pass_turns(&mut bystander);
    heard += &heard_so_far(&mut client);
    // One share, and what a first glance before it may have caught.
    assert!(heard.len() <= 16, "it did not stall: {heard:?}");
    // An edge from elsewhere brings a share, and no more.
    let stalled = heard.len();
    client.write_all(b"!").unwrap();
    heard += &hear(&mut client, 8);
    pass_turns(&mut bystander);
    assert_eq!(heard_so_far(&mut client), "", "a nudge is worth one share");
    assert!(LONG.starts_with(&heard) && heard.len() == stalled + 8, "{heard:?}");
    // Nudged often enough, it says everything: nothing was lost but the wakeup.
    let mut expected = format!("{LONG}!");
    while heard.len() < expected.len() {
        client.write_all(b"!").unwrap();
        expected.push('!');
        heard += &hear(&mut client, 8.min(expected.len() - heard.len()));
    }
    assert_eq!(heard, expected);
}

#[test]
fn step_5_answers_messages() {
    let example = Example::start(STEPS[4]);
    let mut client = example.connect("");
    for message in [
        Message::text("grüezi"),
        Message::binary(vec![0, 159, 255]),
        Message::text(""),
        Message::binary(vec![7; 60_000]),
    ] {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
    client.send(Message::Ping("are you there?".into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong("are you there?".into()));
    let said = CloseFrame { code: CloseCode::Library(4321), reason: "enough".into() };
    client.send(Message::Close(Some(said))).unwrap();
    let Message::Close(Some(answer)) = client.read().unwrap() else { panic!("a Close") };
    assert_eq!(answer.code, CloseCode::Library(4321));
}

#[test]
fn step_5_takes_frames_however_they_are_cut() {
    let example = Example::start(STEPS[4]);
    let mut client = example.dial();
    let mut stream = request(&["Upgrade: websocket"]).into_bytes();
    for text in ["one", "", "three"] {
        stream.extend(frame(OpCode::Data(Data::Text), true, text.as_bytes()));
    }
    for byte in stream {
        client.write_all(&[byte]).unwrap();
    }
    let mut heard = hear(&mut client, 4);
    while !heard.ends_with("\r\n\r\n") {
        heard += &hear(&mut client, 1);
    }
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    // The key and its answer are RFC 6455's own, 1.3.
    assert!(
        heard.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{heard}"
    );
    let mut frames = [0; 14];
    client.read_exact(&mut frames).unwrap();
    assert_eq!(frames, *b"\x81\x03one\x81\x00\x81\x05three");
}

#[test]
fn step_5_keeps_what_the_socket_does_not_take() {
    let example = Example::start(STEPS[4]);
    let mut slow = example.connect("");
    let mut other = example.connect("");
    let mut writing = slow.get_ref().try_clone().unwrap();
    let message = frame(OpCode::Data(Data::Binary), true, &[5; 50_000]);
    let speaker = thread::spawn(move || (0..160).try_for_each(|_| writing.write_all(&message)));
    for _ in 0..100 {
        other.send("not held up".into()).unwrap();
        assert_eq!(other.read().unwrap(), "not held up".into());
    }
    for _ in 0..160 {
        assert_eq!(slow.read().unwrap(), Message::binary(vec![5; 50_000]));
    }
    speaker.join().unwrap().unwrap();
}

#[test]
fn step_5_says_why_it_ends_a_connection() {
    let example = Example::start(STEPS[4]);
    let text = OpCode::Data(Data::Text);
    let too_big = 65_536u64.to_be_bytes();
    for (sent, code) in [
        (vec![0x81, 0x00], 1002),                     // not masked
        (vec![0xc1, 0x80, 0, 0, 0, 0], 1002),         // a reserved bit
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),         // a reserved opcode
        (vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002), // a ping of 126 bytes
        (frame(text, false, b"a beginning"), 1003),   // a fragment
        (frame(text, true, b"\xff"), 1007),           // not UTF-8
        ([&[0x82, 0xff], &too_big[..], &[0; 4]].concat(), 1009),
        ([&[0x82, 0xff], &[0xff; 8][..], &[0; 4]].concat(), 1009),
    ] {
        let mut client = example.connect("");
        client.get_mut().write_all(&sent).unwrap();
        assert_eq!(close_code(client), code, "{sent:x?}");
    }
    for (sent, status) in [
        ("HELO example.com\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_owned(), "HTTP/1.1 426 "),
        (request(&["Upgrade: h2c"]), "HTTP/1.1 426 "),
        (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000)), "HTTP/1.1 431 "),
    ] {
        let mut client = example.dial();
        client.write_all(sent.as_bytes()).unwrap();
        assert_eq!(hear(&mut client, status.len()), status);
    }
    reset_while_upgrading(&example);
    example.connect("").send("and on".into()).unwrap();
}

fn reset_while_upgrading(example: &Example) {
    let mut client = example.dial();
    client.write_all(request(&["Upgrade: websocket"]).as_bytes()).unwrap();
    assert_eq!(client.peek(&mut [0]).unwrap(), 1);
}

fn close_code(mut client: WebSocket<TcpStream>) -> u16 {
    match client.read().unwrap() {
        Message::Close(Some(close)) => close.code.into(),
        other => panic!("{other:?}"),
    }
}

/// The request of RFC 6455 1.3, with these headers.
fn request(headers: &[&str]) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n\r\n",
        headers.join("\r\n")
    )
}

fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = Some([3, 33, 133, 233]);
    let header = FrameHeader { opcode, is_final, mask, ..FrameHeader::default() };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).unwrap();
    bytes
}

/// Reads to the end of the stream, which must be a FIN.
#[track_caller]
fn hear_to_the_end(client: &mut TcpStream) -> String {
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    heard
}

#[test]
fn step_6_ends_who_is_silent_and_nobody_else() {
    let example = Example::start_with(STEPS[5], &[SILENCE_MS]);
    let mut silent = example.dial();
    let mut busy = example.dial();
    let told = thread::spawn(move || (hear_to_the_end(&mut silent), silent));
    while !told.is_finished() {
        round_trip(&mut busy, "a line\n");
    }
    // It has talked for longer than the other was silent.
    round_trip(&mut busy, "and on\n");
    let (told, mut silent) = told.join().unwrap();
    assert_eq!(told, "bye: silent for too long\n");
    // It does not close its half, and is let go all the same: what it sends then is refused.
    let begin = Instant::now();
    while silent.write_all(b"x").is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the lingering has an end");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn step_6_answers_behind_the_peers_end_of_stream() {
    let example = Example::start(STEPS[5]);
    let mut client = example.dial();
    client.write_all(b"one\ntwo\nhalf a line").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hear_to_the_end(&mut client), "one\ntwo\nbye: the end of your stream\n");
}

/// A line without an end, of which most is unread when the server says so. What comes of it: the
/// last words, and whether writing and reading ended in good order.
fn say_too_much(example: &Example) -> (String, bool) {
    let mut client = example.dial();
    let said = client.write_all(&vec![b'x'; 4 << 20]);
    let mut heard = Vec::new();
    let read = client.read_to_end(&mut heard);
    (String::from_utf8(heard).unwrap(), said.is_ok() && read.is_ok())
}

#[test]
fn step_6_lingers_so_that_its_last_words_are_read() {
    let example = Example::start(STEPS[5]);
    assert_eq!(say_too_much(&example), ("bye: a line is too long\n".to_owned(), true));
}

#[test]
fn step_6_resets_where_it_does_not_linger() {
    let example = Example::start_with(STEPS[5], &["5000", "abrupt"]);
    let (_, in_good_order) = say_too_much(&example);
    assert!(!in_good_order, "closed with unread bytes, a socket sends a reset");
}

#[test]
fn step_7_counts_on_the_owner_whichever_loop_accepted() {
    let example = Example::start(STEPS[6]);
    // The sum of a name's bytes is even, or odd.
    for (name, owner) in [("b", 0), ("a", 1), ("ab", 1), ("bb", 0)] {
        let mut clients = [example.dial(), example.dial()];
        for (at, client) in clients.iter_mut().enumerate() {
            // The name and two lines in one packet: all of it has to travel.
            client.write_all(format!("{name}\nx\ny\n").as_bytes()).unwrap();
            for line in 1..=2 {
                let answer = format!("{name}: {}, by loop {owner}\n", 2 * at + line);
                assert_eq!(hear(client, answer.len()), answer);
            }
        }
    }
}

#[test]
fn step_7_wakes_a_loop_that_sleeps_and_takes_all_that_came() {
    let example = Example::start(STEPS[6]);
    // More than the channel holds at once.
    let mut clients: Vec<TcpStream> = (0..200).map(|_| example.dial()).collect();
    for client in &mut clients {
        client.write_all(b"a\nx\n").unwrap();
    }
    let mut counts: Vec<String> = clients.iter_mut().map(hear_line).collect();
    counts.sort_by_key(|line| (line.len(), line.clone()));
    let wanted: Vec<String> = (1..=200).map(|count| format!("a: {count}, by loop 1")).collect();
    assert_eq!(counts, wanted);
}

fn hear_line(client: &mut TcpStream) -> String {
    let mut line = String::new();
    loop {
        match hear(client, 1).as_str() {
            "\n" => return line,
            letter => line += letter,
        }
    }
}

#[test]
fn step_7_loses_what_does_not_travel() {
    let example = Example::start_with(STEPS[6], &["forget-input"]);
    let mut client = example.dial();
    client.write_all(b"a\nhello\n").unwrap();
    // No answer comes to "hello"; how long to wait for none, nobody can say. So a second name is sent
    // when the first has gone to its owner: it is taken for the first.
    let mut bystander = example.dial();
    bystander.write_all(b"b\n").unwrap();
    for count in 1..=100 {
        let answer = format!("b: {count}, by loop 0\n");
        bystander.write_all(b"turn\n").unwrap();
        assert_eq!(hear(&mut bystander, answer.len()), answer);
    }
    client.write_all(b"c\nhello\n").unwrap();
    assert_eq!(hear_line(&mut client), "c: 1, by loop 1");
}

/// The list at the end of a step promises files, and names in them. Both must be there.
#[test]
fn each_step_says_where_it_is_put_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (at, name) in STEPS.iter().enumerate() {
        let text = fs::read_to_string(root.join(format!("examples/{name}.rs"))).unwrap();
        assert!(text.starts_with(&format!("//! Step {} of {}: ", at + 1, STEPS.len())), "{name}");
        assert!(text.lines().count() <= 300, "{name} is too long to be read at a sitting");
        let heading = "\n// What is still wrong with it, and where it is put right:\n//\n// - ";
        let list = text.split_once(heading).unwrap_or_else(|| panic!("{name} has no list")).1;
        assert!(
            list.lines().skip(1).all(|line| line.starts_with("//")),
            "{name}: the list is last"
        );
        if let Some(next) = STEPS.get(at + 1) {
            assert!(list.contains(&format!("{next}.rs")), "{name} does not lead on to {next}");
        }
        let list = list.replace("\n//", " ");
        let words: Vec<&str> = list.split_whitespace().collect();
        let mut files = 0;
        for (at, word) in words.iter().enumerate() {
            let path = word.trim_end_matches([',', '.', ';', ':']);
            if !path.starts_with("src/") {
                continue;
            }
            files += 1;
            assert!(root.join(path).exists(), "{name}: there is no {path}");
            // "`Name` in src/file.rs": the name is there.
            if let Some([named, "in"]) = words.get(at.wrapping_sub(2)..at)
                && let Some(named) = named.strip_prefix('`')
            {
                let named = named.trim_matches(['`', '(', ')', ',']).rsplit("::").next().unwrap();
                let source = fs::read_to_string(root.join(path)).unwrap();
                assert!(source.contains(named), "{name}: there is no {named} in {path}");
            }
        }
        assert!(files >= 3, "{name} hardly says where its defects are put right");
    }
}
