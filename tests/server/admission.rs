//! Who is let in: what `on_upgrade` sees, and what its answers look like on the wire.

use std::time::Duration;

use super::client::{Running, config, eventually, frame, quiet_reactors};
use revolve::{Acceptance, Application, Config, Context, Message, Refusal, Subprotocols, Upgrade};

/// Rooms 1 to 9, for those who know the word; everyone's name is in a cookie.
#[derive(Default)]
struct Rooms {
    opened: u32,
}

#[derive(Default)]
struct Seat {
    name: String,
    room: u8,
    opened: u32,
}

impl Application for Rooms {
    type Session = Seat;
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let room = match upgrade.path().strip_prefix("/rooms/").map(str::parse) {
            Some(Ok(room @ 1..=9)) => room,
            Some(Ok(room @ 200..)) => {
                let reason = format!("there is no room {room}");
                return Err(Refusal::json_error::<404>(&reason).header("X-Rooms", "9")?);
            }
            _ => return Err(Refusal::new::<404>("no such room")),
        };
        if upgrade.parameter("word").as_deref() != Some("open sesame") {
            let refusal = Refusal::new::<401>("say the word");
            return Err(refusal.header("WWW-Authenticate", "Word realm=\"rooms\"")?);
        }
        let name = upgrade.cookie("name").unwrap_or_default().to_owned();
        assert_ne!(name, "panic", "as asked");
        if upgrade.session().is_some_and(|seat| seat.name != name) {
            return Err(Refusal::new::<403>("somebody else sits here"));
        }
        let mut acceptance = upgrade
            .accept()
            .subprotocol(upgrade.choose_subprotocol(&["rooms.v2", "rooms.v1"]))
            .header("X-Room", &room.to_string())?;
        if let Some(echo) = upgrade.parameter("echo") {
            acceptance = acceptance.header("X-Echo", &echo)?;
        }
        let peer = upgrade.peer();
        Ok(acceptance.then(move |rooms, cx| {
            assert_eq!(peer, cx.peer());
            rooms.opened += 1;
            let opened = rooms.opened;
            *cx.session_mut() = Seat { name, room, opened };
        }))
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let Seat { name, room, opened } = cx.session();
        let line = format!("{name} in room {room}, {opened} let in");
        cx.send_text(&line);
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

const WORD: &str = "word=open%20sesame";

fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

fn rooms(workers: usize) -> Running {
    let config = Config { ws_path: "/rooms/*".to_owned(), ..config(workers) };
    Running::new(config, |_| Rooms::default())
}

#[test]
fn a_request_is_seen_whole_and_what_it_told_is_there_at_the_opening() {
    let server = rooms(1);
    for (number, offer, chosen) in
        [(1, "rooms.v1, rooms.v2", "rooms.v2"), (2, "rooms.v1", "rooms.v1"), (3, "chat", "")]
    {
        let fields = format!("Cookie: name=ann\r\nSec-WebSocket-Protocol: {offer}\r\n");
        let mut raw = server.connect();
        raw.send(request(&format!("/rooms/{number}?{WORD}"), &fields));
        let head = raw.head();
        assert_eq!(head.status, 101);
        assert_eq!(head.field("sec-websocket-protocol"), chosen);
        assert_eq!(head.field("x-room"), number.to_string());
        assert_eq!(raw.text(), format!("ann in room {number}, {number} let in"));
    }
}

#[test]
fn a_refusal_may_be_made_for_programs() {
    let server = rooms(1);
    let mut raw = server.connect();
    raw.send(request("/rooms/200", ""));
    let response = raw.response();
    assert_eq!(response.head.status, 404);
    assert_eq!(response.body, r#"{"error": "there is no room 200"}"#);
    assert_eq!(response.head.field("content-type"), "application/json");
    assert_eq!(response.head.field("x-rooms"), "9");
    assert_eq!(response.head.field("connection"), "close");
    raw.at_end();
}

#[test]
fn where_the_application_chooses_no_subprotocol_the_settings_do() {
    let ours = Subprotocols::parse("chat.v2,chat").unwrap();
    for (ws_subprotocols, cases) in [
        (
            ours,
            [
                ("chat", "chat"),
                // The server's order decides.
                ("chat, chat.v2", "chat.v2"),
                ("mqtt, chat", "chat"),
                ("mqtt", ""),
                ("", ""),
                // The application's choice stands above the settings'.
                ("chat.v2, rooms.v1", "rooms.v1"),
            ],
        ),
        (
            Subprotocols::Any,
            [
                ("mqtt, chat", "mqtt"),
                (" , chat", "chat"),
                // What is no token is not sent back.
                ("a b, \"x\", a/b, chat", "chat"),
                ("<script>", ""),
                ("", ""),
                ("chat, rooms.v2", "rooms.v2"),
            ],
        ),
    ] {
        let config = Config { ws_path: "/rooms/*".to_owned(), ws_subprotocols, ..config(3) };
        let server = Running::new(config, |_| Rooms::default());
        for (number, (offer, chosen)) in cases.into_iter().enumerate() {
            // Under ids of every reactor, so some of them are handed over.
            for id in ["a", "b", "c"] {
                let target = format!("/rooms/1?{WORD}&session_id={id}{number}");
                let mut raw = server.connect();
                raw.send(request(&target, &format!("Sec-WebSocket-Protocol: {offer}\r\n")));
                let head = raw.head();
                assert_eq!((head.status, head.field("sec-websocket-protocol")), (101, chosen));
            }
        }
    }
}

#[test]
fn a_refusal_has_its_status_its_fields_and_one_line() {
    let server = rooms(2);
    let no_room = request(&format!("/rooms/10?{WORD}"), "");
    let no_word = request("/rooms/1?word=<script>", "");
    for (number, (request, status, phrase, body)) in [
        (&no_room, 404, "Not Found", "no such room\n"),
        (&no_word, 401, "Unauthorized", "say the word\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = server.connect();
        raw.send(request);
        raw.exactly(format!("HTTP/1.1 {status} {phrase}\r\n"));
        let mut raw = server.connect();
        raw.send(request);
        let response = raw.response();
        assert_eq!((response.head.status, response.body.as_str()), (status, body));
        let challenge = if status == 401 { "Word realm=\"rooms\"" } else { "" };
        assert_eq!(response.head.field("www-authenticate"), challenge);
        assert_eq!(response.head.field("connection"), "close");
        raw.at_end();
        let refused = 2 * (number as u64 + 1);
        eventually("it is counted", || {
            server.metric("revolve_rejected_total", "reason=\"application\"") == refused
        });
    }
    assert_eq!(server.metric("revolve_websockets", ""), 0);
}

#[test]
fn a_session_is_kept_from_those_who_merely_know_its_id() {
    let server = rooms(4);
    let target = format!("/rooms/1?{WORD}&session_id=seat");
    let mut ann = server.connect();
    ann.send(request(&target, "Cookie: name=ann\r\n"));
    assert_eq!(ann.head().status, 101);
    assert_eq!(ann.text(), "ann in room 1, 1 let in");
    for _ in 0..4 {
        let mut eve = server.connect();
        eve.send(request(&target, "Cookie: name=eve\r\n"));
        assert_eq!(eve.response().head.status, 403);
    }
    assert_eq!(server.metric("revolve_takeovers_total", ""), 0, "ann was not displaced for it");
    // She herself may, whichever reactor she reaches.
    let mut again = server.connect();
    again.send(request(&target, "Cookie: name=ann\r\n"));
    assert_eq!(again.head().status, 101);
    assert_eq!(ann.close().0, 4001);
}

#[test]
fn no_header_field_can_be_smuggled_into_the_response() {
    let server = rooms(1);
    let mut raw = server.connect();
    raw.send(request(&format!("/rooms/1?{WORD}&echo=a%0D%0ASet-Cookie:%20b"), ""));
    let response = raw.response();
    assert_eq!((response.head.status, response.body.as_str()), (500, "internal error\n"));
    assert_eq!(response.head.field("set-cookie"), "");
    let mut raw = server.connect();
    raw.send(request(&format!("/rooms/1?{WORD}&echo=plain"), ""));
    assert_eq!(raw.head().field("x-echo"), "plain");
}

#[test]
fn a_panic_in_on_upgrade_refuses_and_harms_nobody() {
    quiet_reactors();
    let server = rooms(1);
    for _ in 0..3 {
        let mut raw = server.connect();
        raw.send(request(&format!("/rooms/1?{WORD}"), "Cookie: name=panic\r\n"));
        assert_eq!(raw.response().head.status, 500);
        raw.at_end();
    }
    assert_eq!(server.metric("revolve_panics_total", ""), 3);
    let mut raw = server.connect();
    raw.send(request(&format!("/rooms/1?{WORD}"), ""));
    assert_eq!(raw.head().status, 101);
}

#[test]
fn the_servers_own_pages_stay_where_they_are() {
    let config = Config { ws_path: "/*".to_owned(), ..config(1) };
    let server = Running::new(config, |_| Rooms::default());
    let mut raw = server.connect();
    raw.send(super::client::get("/healthz"));
    assert_eq!(raw.response().body, "{\"status\": \"ok\"}");
    let mut raw = server.connect();
    raw.send(super::client::get("/rooms/1"));
    assert_eq!(raw.response().head.status, 426);
}

/// Lets those in whose word a slow data base knows.
struct Slow;

impl Application for Slow {
    type Session = Option<String>;
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let word = upgrade.parameter("word").unwrap_or_default().into_owned();
        let look_up = move || {
            std::thread::sleep(Duration::from_millis(300));
            assert_ne!(word, "panic", "as asked");
            (word == "sesame").then_some(word)
        };
        upgrade.defer(look_up, |_, upgrade, word| match word {
            None => Err(Refusal::new::<403>("not known")),
            Some(word) => {
                let acceptance = upgrade.accept().header("X-Word", &word)?;
                Ok(acceptance.then(move |_, cx| *cx.session_mut() = Some(word)))
            }
        })
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        let count = cx.count_message();
        let word = cx.session().clone().unwrap_or_default();
        cx.send_text(&format!("{word} {count}"));
    }
}

#[test]
fn an_upgrade_is_decided_on_another_thread_and_nobody_waits_for_it() {
    let server = Running::new(Config { ws_path: "/".to_owned(), ..config(2) }, |_| Slow);
    // Under ids of both reactors, with a message right behind the request.
    let mut known: Vec<_> = ["a", "b", "c"]
        .map(|id| {
            let mut raw = server.connect();
            let head = request(&format!("/?session_id={id}&word=sesame"), "");
            raw.send([head.as_bytes(), &frame(0x81, "hello")].concat());
            raw
        })
        .into();
    let mut unknown = server.connect();
    unknown.send(request("/?word=abracadabra", ""));
    let mut failing = server.connect();
    failing.send(request("/?word=panic", ""));
    // Meanwhile the reactors serve others.
    let mut bystander = server.connect();
    bystander.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(bystander.response().head.status, 200);
    assert_eq!(server.metric("revolve_websockets", ""), 0);
    for raw in &mut known {
        let head = raw.head();
        assert_eq!((head.status, head.field("x-word")), (101, "sesame"));
        assert_eq!(raw.text(), "sesame 1");
    }
    let refused = unknown.response();
    assert_eq!((refused.head.status, refused.body.as_str()), (403, "not known\n"));
    assert_eq!(failing.response().head.status, 500);
    // A newer request for the first session: it goes on until the answer, then it is displaced.
    let mut newer = server.connect();
    newer.send(request("/?session_id=a&word=sesame", ""));
    known[0].say("still here");
    assert_eq!(known[0].text(), "sesame 2");
    assert_eq!(newer.head().status, 101);
    assert_eq!(known[0].close().0, 4001);
    newer.say("and here");
    assert_eq!(newer.text(), "sesame 3");
}
