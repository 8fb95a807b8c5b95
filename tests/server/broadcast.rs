//! One speaks, all hear: on every reactor, in order, whatever ends meanwhile.

use std::thread;
use std::time::Duration;

use super::client::{Raw, Running, TEXT, close, config, frame, upgrade};
use revolve::session::owner_of;
use revolve::{Application, CloseReason, Config, Context, Message};

/// Everyone hears what anyone says, and who leaves.
struct Town;

impl Application for Town {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text("ping") => cx.send_text("pong"),
            Message::Text(text) => cx.broadcast_text(text),
            Message::Binary(bytes) => cx.broadcast_binary(bytes),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let name = cx.session_id();
        cx.broadcast_text(&format!("{name} left with {}", reason.code));
    }
}

/// So many connections on each of four reactors, by names that live there.
fn citizens(server: &Running, on_each: usize) -> Vec<Raw> {
    let mut room = [on_each; 4];
    let mut raws = Vec::new();
    for name in (0..).map(|n| format!("citizen-{n}")) {
        let owner = owner_of(&name, 4);
        if room[owner] > 0 {
            room[owner] -= 1;
            raws.push(server.open(&format!("session_id={name}")));
        }
        if room == [0; 4] {
            return raws;
        }
    }
    unreachable!("there are names enough")
}

#[test]
fn all_reactors_hear_one_connection_in_order() {
    let server = Running::new(config(4), |_| Town);
    let mut raws = citizens(&server, 5);
    for reactor in 0..4 {
        let label = format!("reactor=\"{reactor}\"");
        assert_eq!(server.metric("revolve_websockets", &label), 5);
    }
    let mut news = Vec::new();
    for n in 0..500 {
        news.extend(frame(TEXT, format!("news {n}")));
    }
    news.extend(frame(0x82, [1, 2, 3]));
    raws[7].send(news);
    for raw in &mut raws {
        for n in 0..500 {
            assert_eq!(raw.text(), format!("news {n}"));
        }
        assert_eq!(raw.frame().payload, [1, 2, 3]);
    }
}

#[test]
fn each_speaker_is_heard_in_order_by_all() {
    let server = Running::new(config(4), |_| Town);
    let mut raws = citizens(&server, 3);
    let speakers = raws.len();
    for (speaker, raw) in raws.iter_mut().enumerate() {
        let words = (0..100).flat_map(|n| frame(TEXT, format!("{speaker} {n}")));
        raw.send(words.collect::<Vec<_>>());
    }
    for raw in &mut raws {
        let mut next = vec![0; speakers];
        for _ in 0..speakers * 100 {
            let text = raw.text();
            let (speaker, n) = text.split_once(' ').unwrap();
            let speaker: usize = speaker.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[speaker]), "{text}");
            next[speaker] += 1;
        }
    }
}

#[test]
fn more_broadcasts_than_may_be_under_way_all_arrive() {
    // A small mailbox and a short queue: senders have to wait, and nothing is lost or overtakes.
    let mut config = config(4);
    config.limits.mailbox_capacity = 4;
    config.limits.broadcasts_queued = 8;
    config.limits.broadcast_slice = 1;
    let server = Running::new(config, |_| Town);
    let mut raws = citizens(&server, 2);
    for raw in &mut raws {
        raw.send(frame(TEXT, "word").repeat(200));
    }
    let expected = raws.len() * 200;
    for raw in &mut raws {
        for _ in 0..expected {
            assert_eq!(raw.text(), "word");
        }
        raw.say("ping");
    }
    for raw in &mut raws {
        assert_eq!(raw.text(), "pong");
    }
}

#[test]
fn broadcasts_do_not_pile_up_on_a_slower_reactor() {
    // One talks on a reactor of its own; on the other fifty listen, in slices of one, so that a
    // broadcast takes fifty times as many turns there. What is under way between the two must
    // stay bounded, whatever their speeds.
    const LISTENERS: u64 = 50;
    const WORDS: u64 = 5000;
    let mut config = config(2);
    config.limits.mailbox_capacity = 4;
    config.limits.broadcasts_queued = 8;
    config.limits.broadcast_slice = 1;
    // Nobody reads, and nobody is let go for it.
    config.max_send_buffer = 1 << 30;
    let server = Running::new(config, |_| Town);
    let names = |owner| (0..).map(|n| format!("n-{n}")).filter(move |n| owner_of(n, 2) == owner);
    let talker = server.open(&format!("session_id={}", names(0).next().unwrap()));
    let _listeners: Vec<_> = names(1)
        .take(LISTENERS as usize)
        .map(|name| server.open(&format!("session_id={name}")))
        .collect();
    let slower = "reactor=\"1\"";
    let before = server.metric("revolve_bytes_out_total", slower);
    let mut sender = talker.twin();
    let word = frame(TEXT, [b'x'; 996]);
    let sending = thread::spawn(move || sender.send(word.repeat(WORDS as usize)));
    let mut most = 0;
    let mut taken = 0;
    while taken < WORDS {
        // Read in this order, so that what is under way is rather under- than overrated.
        taken = server.metric("ws_total_messages_total", "");
        let sent = server.metric("revolve_bytes_out_total", slower) - before;
        most = most.max(taken.saturating_sub(sent / (1000 * LISTENERS)));
        thread::sleep(Duration::from_millis(1));
    }
    sending.join().unwrap();
    // Mailbox, queue, and what a single visit may add before it is noticed: 64 KiB of words.
    assert!(most <= 4 + 8 + 66 + 8, "{most} broadcasts were under way");
}

#[test]
fn all_hear_who_leaves_however_they_leave() {
    let server = Running::new(config(4), |_| Town);
    let mut raws = citizens(&server, 1);
    type Leave = fn(Raw);
    let leavings: [(&str, Leave); 4] = [
        ("1000", |mut raw| {
            raw.send(close(1000));
            raw.close();
        }),
        ("1006", drop),
        ("1006", Raw::reset),
        ("1002", |mut raw| raw.send([0xff])),
    ];
    for (n, (code, leave)) in leavings.into_iter().enumerate() {
        let leaver = server.open(&format!("session_id=leaver-{n}"));
        leave(leaver);
        for raw in &mut raws {
            assert_eq!(raw.text(), format!("leaver-{n} left with {code}"));
        }
    }
    // Displaced by a newer connection of its own session.
    let _older = server.open("session_id=again");
    let mut newer = server.open("session_id=again");
    for raw in &mut raws {
        assert_eq!(raw.text(), "again left with 4001");
    }
    // Its own connection is open before the news goes round.
    assert_eq!(newer.text(), "again left with 4001");
}

#[test]
fn a_large_broadcast_is_no_fault_of_those_who_hear_it() {
    let server = Running::new(config(4), |_| Town);
    let mut raws = citizens(&server, 1);
    // Twice what may wait for a socket; but these sockets have nothing waiting.
    let large = vec![b'x'; 2 << 20];
    raws[0].send(frame(TEXT, &large));
    for raw in &mut raws {
        let got = raw.frame();
        assert!(
            got.first == TEXT && got.payload == large,
            "{:#x}: {}",
            got.first,
            String::from_utf8_lossy(&got.payload[..got.payload.len().min(50)])
        );
    }
}

#[test]
fn one_that_does_not_read_is_let_go_and_holds_up_nobody() {
    let server = Running::new(Config { max_send_buffer: 64 << 10, ..config(4) }, |_| Town);
    let mut raws = citizens(&server, 1);
    let mut deaf = server.connect_narrow();
    deaf.send(upgrade("session_id=deaf"));
    deaf.head();
    let page = "x".repeat(32 << 10);
    // 4 MB fill whatever the kernel holds (tcp_wmem), after that the backlog grows to its mark.
    let mut rounds = 0;
    while server.metric("revolve_closed_total", "code=\"1008\",side=\"server\"") == 0 {
        raws[rounds % 4].say(&page);
        for raw in &mut raws {
            loop {
                let text = raw.text();
                if text.len() == page.len() {
                    break;
                }
                assert_eq!(text, "deaf left with 1008");
            }
        }
        rounds += 1;
        assert!(rounds < 1000, "32 MB wait for one who does not read");
    }
    server.wait_for("revolve_websockets", "", 4);
    deaf.gone();
}
