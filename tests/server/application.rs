//! What an embedder's application may do, and what happens when it panics.

use std::sync::{Arc, Mutex};

use super::client::{Running, TEXT, close, config, frame, quiet_reactors};
use revolve::{Application, CloseReason, Context, Message, Side};

// --- panics ----------------------------------------------------------------------------------

/// Panics where its session is told to, and counts everywhere else.
struct Fragile(Arc<Mutex<Vec<CloseReason>>>);

impl Application for Fragile {
    type Session = ();
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        cx.send_text("welcome");
        assert!(!cx.session_id().starts_with("on-open"), "as asked");
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let count = cx.count_message();
        cx.send_text(&count.to_string());
        assert_ne!(message, Message::Text("panic"));
        if message == Message::Text("leave") {
            cx.close(1000, "as you wish");
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        self.0.lock().unwrap().push(reason);
        assert!(!cx.session_id().starts_with("on-close"), "as asked");
    }
}

fn fragile() -> (Running, Arc<Mutex<Vec<CloseReason>>>) {
    quiet_reactors();
    let reasons = Arc::<Mutex<Vec<CloseReason>>>::default();
    let copy = reasons.clone();
    (Running::new(config(2), move |_| Fragile(copy.clone())), reasons)
}

const PANICKED: CloseReason = CloseReason { code: 1011, side: Side::Server };

fn internal_error() -> (u16, String) {
    (1011, "internal error".to_owned())
}

#[test]
fn a_panic_in_on_open_ends_its_connection() {
    let (server, reasons) = fragile();
    let mut witness = server.open("session_id=witness");
    assert_eq!(witness.text(), "welcome");
    for n in 0..10 {
        let mut raw = server.open(&format!("session_id=on-open-{n}"));
        assert_eq!(raw.text(), "welcome");
        assert_eq!(raw.close(), internal_error());
        raw.at_end();
    }
    witness.say("x");
    assert_eq!(witness.text(), "1");
    assert_eq!(*reasons.lock().unwrap(), [PANICKED; 10], "`on_close` for each `on_open`");
    assert_eq!(server.metric("revolve_panics_total", ""), 10);
}

#[test]
fn a_panic_in_on_message_ends_its_connection() {
    let (server, reasons) = fragile();
    let mut witness = server.open("session_id=witness");
    assert_eq!(witness.text(), "welcome");
    for n in 0..10 {
        let query = format!("session_id=m-{n}");
        let mut raw = server.open(&query);
        let [x, panic] = [frame(TEXT, "x"), frame(TEXT, "panic")];
        raw.send([&x[..], &panic, &x, &x].concat());
        for text in ["welcome", "1", "2"] {
            assert_eq!(raw.text(), text, "what was said before it leaves");
        }
        assert_eq!(raw.close(), internal_error());
        raw.at_end();
        // The session survives; what stood behind the panic was not delivered.
        let mut again = server.open(&query);
        assert_eq!(again.text(), "welcome");
        again.say("x");
        assert_eq!(again.text(), "3");
    }
    witness.say("x");
    assert_eq!(witness.text(), "1");
    assert_eq!(server.metric("revolve_panics_total", ""), 10);
    let count = reasons.lock().unwrap().iter().filter(|&&reason| reason == PANICKED).count();
    assert_eq!(count, 10);
    assert_eq!(server.metric("ws_error_count_total", ""), 10);
}

#[test]
fn a_panic_in_on_close_harms_nobody() {
    let (server, _) = fragile();
    let mut witness = server.open("session_id=witness");
    assert_eq!(witness.text(), "welcome");
    let mut ended = 0;
    for n in 0..4 {
        // The client closes, the application closes, the client vanishes, somebody takes over.
        let query = format!("session_id=on-close-{n}");
        let mut raw = server.open(&query);
        raw.text();
        match n {
            0 => {
                raw.send(close(1000));
                assert_eq!(raw.close(), (1000, String::new()));
            }
            1 => {
                raw.say("leave");
                raw.text();
                assert_eq!(raw.close(), (1000, "as you wish".to_owned()));
            }
            2 => raw.reset(),
            _ => {
                let mut newer = server.open(&query);
                assert_eq!(raw.close(), (4001, "session taken over".to_owned()));
                assert_eq!(newer.text(), "welcome");
                drop(newer);
                ended += 1;
            }
        }
        ended += 1;
        server.wait_for("revolve_panics_total", "", ended);
    }
    witness.say("x");
    assert_eq!(witness.text(), "1");
    server.wait_for("revolve_websockets", "", 1);
    server.wait_for("revolve_sessions_live", "", 1);
}

// --- what is the daemon's own -----------------------------------------------------------------

/// Counts, and has nothing to say about it in the 101.
struct Plain;

impl Application for Plain {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        let count = cx.count_message();
        cx.send_text(&count.to_string());
    }
}

#[test]
fn the_count_in_the_101_and_the_hello_are_the_daemons_and_no_other_applications() {
    let server = Running::new(config(2), |_| Plain);
    for query in ["", "hello=1", "session_id=", "session_id=a&hello=1"] {
        let (mut raw, head) = server.open_with_head(query);
        assert_eq!(head.field("x-session-count"), "", "{query}");
        assert_eq!(head.field("x-session-resumed"), "false", "{query}");
        assert_ne!(head.field("x-session-id"), "", "{query}");
        // The first frame answers the first message.
        raw.say("x");
        assert_eq!(raw.text(), "1", "{query}");
    }
}

// --- what it may ask for ---------------------------------------------------------------------

/// Tells what it knows, and does what it is told.
#[derive(Default)]
struct Inquisitive {
    /// Of this reactor; not `Send`, and needs not be.
    heard: std::rc::Rc<std::cell::Cell<u32>>,
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Application for Inquisitive {
    type Session = Notes;
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let line = format!("{} {} {}", cx.peer(), cx.is_resumed(), cx.session().0.join("+"));
        cx.send_text(&line);
        if cx.session_id() == "unwanted" {
            cx.close(4403, "not you");
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        self.heard.set(self.heard.get() + 1);
        match message {
            Message::Text("close with a long reason") => cx.close(4000, &"ä".repeat(100)),
            Message::Text("close twice") => {
                cx.close(4002, "first");
                cx.close(4003, "second");
                cx.send_text("sent after the close was asked for");
            }
            Message::Text(text) => {
                cx.session_mut().0.push(text.to_owned());
                cx.send_text_parts([
                    "noted ".into(),
                    text.into(),
                    ", ".into(),
                    u64::from(self.heard.get()).into(),
                ]);
            }
            Message::Binary(bytes) => cx.send_binary(&bytes.repeat(2)),
        }
    }
}

#[test]
fn a_session_holds_any_state_and_keeps_it() {
    let server = Running::new(config(4), |_| Inquisitive::default());
    let mut raw = server.open("session_id=notes");
    let peer = raw.stream.local_addr().unwrap();
    assert_eq!(raw.text(), format!("{peer} false "));
    raw.say("a");
    assert_eq!(raw.text(), "noted a, 1");
    raw.say("b");
    assert_eq!(raw.text(), "noted b, 2");
    raw.send(frame(0x82, [1, 2]));
    assert_eq!(raw.frame().payload, [1, 2, 1, 2]);
    drop(raw);
    server.wait_for("revolve_websockets", "", 0);
    // It has counted nothing and is kept all the same, because its state was touched.
    let mut raw = server.open("session_id=notes");
    let peer = raw.stream.local_addr().unwrap();
    assert_eq!(raw.text(), format!("{peer} true a+b"));
}

#[test]
fn an_application_closes_as_it_likes() {
    let server = Running::new(config(1), |_| Inquisitive::default());
    let mut raw = server.open("session_id=unwanted");
    raw.text();
    assert_eq!(raw.close(), (4403, "not you".to_owned()));
    raw.send(close(4403));
    raw.at_end();
    let mut raw = server.open("");
    raw.text();
    raw.say("close with a long reason");
    // 123 bytes are room for 61 of these letters and a half.
    assert_eq!(raw.close(), (4000, "ä".repeat(61)));
    let mut raw = server.open("");
    raw.text();
    raw.send([frame(TEXT, "close twice"), frame(TEXT, "unheard")].concat());
    assert_eq!(raw.text(), "sent after the close was asked for");
    assert_eq!(raw.close(), (4002, "first".to_owned()));
    raw.send(close(4002));
    raw.at_end();
    assert_eq!(server.metric("revolve_closed_total", "code=\"4xxx\",side=\"server\""), 3);
}
