//! What is for one connection, from another one or from another thread; and what threads want done on a
//! reactor. (In every order of events: the simulation.)

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::client::{PATIENCE, Raw, close, config, eventually, metric, quiet_reactors, upgrade};
use revolve::{
    Application, CloseReason, Config, ConnectionId, Context, Limits, Message, PostError,
    ReactorContext, ReactorStart, Recipient, Server, ServerHandle, owner_of,
};

/// `who` tells the connection's name on the reactor; `@REACTOR words` leaves a note there; `NAME:words` says words to a session; `!NAME` closes it;
/// `#words` says them to the connection that spoke before.
struct Whisper {
    last: Option<ConnectionId>,
    notes: Vec<String>,
    reactor: usize,
}

impl Whisper {
    fn new(start: ReactorStart<Self>) -> Self {
        Whisper { last: None, notes: Vec::new(), reactor: start.reactor() }
    }

    fn serve(config: Config) -> ServerHandle<Whisper> {
        Server::builder().config(config).serve(Whisper::new).unwrap()
    }
}

impl Application for Whisper {
    type Session = String;
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else {
            return cx.send_binary_to(cx.connection_id(), b"b");
        };
        if text == "who" {
            cx.send_text(&cx.connection_id().to_string());
        } else if let Some(words) = text.strip_prefix('#') {
            if let Some(last) = self.last {
                cx.send_text_to(last, words);
            }
        } else if let Some(words) = text.strip_prefix('@') {
            // `@REACTOR words`: a note on a reactor.
            let (reactor, words) = words.split_once(' ').unwrap();
            let words = words.to_owned();
            cx.post(reactor.parse().unwrap(), move |whisper, _| whisper.notes.push(words));
        } else if let Some(name) = text.strip_prefix('!') {
            cx.close_other(Recipient::session(name), 4007, "enough");
        } else if let Some((name, words)) = text.split_once(':') {
            cx.send_text_to(Recipient::session(name), words);
        } else {
            *cx.session_mut() = text.to_owned();
        }
        self.last = Some(cx.connection_id());
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        // Last words, to somebody who may be on any reactor.
        let words = format!("{} left with {}", cx.session_id(), reason.code);
        cx.send_text_to(Recipient::session("keeper"), &words);
    }
}

fn open(server: &ServerHandle<Whisper>, name: &str) -> Raw {
    let mut raw =
        Raw::new(std::net::TcpStream::connect(server.addresses()[0].tcp().unwrap()).unwrap());
    raw.send(upgrade(&format!("session_id={name}")));
    assert_eq!(raw.head().status, 101);
    raw
}

/// A name that lives there.
fn name_on(reactor: usize, workers: usize, prefix: &str) -> String {
    let mut names = (0..).map(|n| format!("{prefix}{n}"));
    names.find(|name| owner_of(name, workers) == reactor).unwrap()
}

fn end(server: ServerHandle<Whisper>) {
    server.shutdown();
    let summary = server.join();
    assert_eq!((summary.panicked, summary.failed), (0, 0));
}

#[test]
fn one_connection_speaks_to_another_on_any_reactor_in_order() {
    let server = Whisper::serve(config(4));
    let mut keeper = open(&server, "keeper");
    let names: Vec<String> = (0..4).map(|reactor| name_on(reactor, 4, "citizen-")).collect();
    let mut raws: Vec<Raw> = names.iter().map(|name| open(&server, name)).collect();
    for (from, raw) in raws.iter_mut().enumerate() {
        for name in &names {
            for n in 0..100 {
                raw.say(&format!("{name}:{from} {n}"));
            }
        }
    }
    for raw in &mut raws {
        let mut heard: HashMap<String, Vec<String>> = HashMap::new();
        for _ in 0..400 {
            let text = raw.text();
            let (from, n) = text.split_once(' ').unwrap();
            heard.entry(from.to_owned()).or_default().push(n.to_owned());
        }
        let in_order: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert!(heard.len() == 4 && heard.values().all(|numbers| *numbers == in_order));
    }
    // By the name of the connection, which is unique in the server.
    raws[1].say("who");
    let who = raws[1].text();
    assert!(who.starts_with("1/"), "{who}");
    // Closed by another one, with its code, behind what it was sent.
    raws[0].say(&format!("{}:mind the gap", names[2]));
    raws[0].say(&format!("!{}", names[2]));
    assert_eq!(raws[2].text(), "mind the gap");
    assert_eq!(raws[2].close(), (4007, "enough".to_owned()));
    raws[2].send(close(4007));
    raws[2].at_end();
    assert_eq!(keeper.text(), format!("{} left with 4007", names[2]));
    // It has gone, and there are no such sessions: counted, and no harm done.
    for nobody in [&names[2], "nobody", "no session's id!"] {
        raws[0].say(&format!("{nobody}:hello"));
    }
    let undelivered = || metric(&server.metrics(), "revolve_undelivered_total", "");
    eventually("three found nobody", || undelivered() == 3);
    end(server);
}

#[test]
fn a_name_that_has_become_anothers_slot_finds_nobody() {
    let server = Whisper::serve(config(1));
    let mut keeper = open(&server, "keeper");
    let mut older = open(&server, "older");
    older.say("first");
    older.say("who");
    let name = older.text();
    older.send(close(1000));
    assert_eq!(older.close().0, 1000);
    older.at_end();
    assert_eq!(keeper.text(), "older left with 1000");
    let mut newer = open(&server, "newer");
    newer.say("#are you there?");
    newer.say("who");
    assert_ne!(newer.text(), name, "a name is never used again");
    eventually("nobody", || metric(&server.metrics(), "revolve_undelivered_total", "") == 1);
    end(server);
}

#[test]
fn threads_reach_reactors_and_connections_in_their_order() {
    let server = Whisper::serve(config(2));
    let names = [name_on(0, 2, "a"), name_on(1, 2, "b")];
    let mut raws = names.clone().map(|name| open(&server, &name));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (remote, names) = (server.remote(), names.clone());
            thread::spawn(move || {
                for n in 0..300 {
                    let note = format!("{thread} {n}");
                    // A full box is an answer.
                    let retry = |post: &dyn Fn() -> Result<(), PostError>| {
                        while let Err(error) = post() {
                            assert!(matches!(error, PostError::Full { .. }), "{error}");
                            thread::sleep(Duration::from_millis(1));
                        }
                    };
                    for (reactor, name) in names.iter().enumerate() {
                        retry(&|| {
                            let note = note.clone();
                            remote.post(reactor, move |whisper, cx| {
                                assert_eq!(cx.reactor(), whisper.reactor);
                                whisper.notes.push(note);
                            })
                        });
                        retry(&|| {
                            let note = note.clone();
                            let to = Recipient::session(name);
                            remote.post_to(to, move |_, cx| cx.send_text(&note))
                        });
                    }
                }
            })
        })
        .collect();
    for raw in &mut raws {
        check_order((0..1200).map(|_| raw.text()));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let (notes, heard): (Sender<Vec<String>>, Receiver<_>) = channel();
    server.remote().post_all(move |whisper, _| notes.send(whisper.notes.clone()).unwrap()).unwrap();
    for _ in 0..2 {
        check_order(heard.recv_timeout(PATIENCE).unwrap().into_iter());
    }
    end(server);
}

/// Each thread's notes are there, in its order.
fn check_order(notes: impl Iterator<Item = String>) {
    let mut next = [0; 4];
    for note in notes {
        let (thread, n) = note.split_once(' ').unwrap();
        let thread: usize = thread.parse().unwrap();
        assert_eq!(n.parse(), Ok(next[thread]), "of thread {thread}");
        next[thread] += 1;
    }
    assert_eq!(next, [300; 4]);
}

#[test]
fn a_full_box_and_an_ended_server_are_answers() {
    let limits = Limits { mailbox_capacity: 1, ..Limits::default() };
    let server = Whisper::serve(Config { limits, ..config(2) });
    let remote = server.remote();
    let (let_go, wait) = channel::<()>();
    let (entered, has_entered) = channel();
    let hold = move |_: &mut Whisper, _: &mut ReactorContext<'_, Whisper>| {
        entered.send(()).unwrap();
        let _ = wait.recv();
    };
    remote.post(0, hold).unwrap();
    has_entered.recv_timeout(PATIENCE).unwrap();
    // One waits in the box, and there is no room for another; the other reactor is not concerned.
    let (ran, has_run) = channel();
    let (first, second) = (ran.clone(), ran.clone());
    remote.post(0, move |_, _| first.send("waited").unwrap()).unwrap();
    assert_eq!(remote.post(0, |_, _| ()), Err(PostError::Full { reactor: 0 }));
    assert_eq!(
        remote.post_all(move |_, _| ran.send("all").unwrap()),
        Err(PostError::Full { reactor: 0 })
    );
    assert_eq!(has_run.recv_timeout(PATIENCE), Ok("all"), "on the other reactor all the same");
    let_go.send(()).unwrap();
    assert_eq!(has_run.recv_timeout(PATIENCE), Ok("waited"));
    drop(second);
    end(server);
    assert_eq!(remote.post(1, |_, _| ()), Err(PostError::Ended));
    assert_eq!(remote.post_to(Recipient::session("ann"), |_, _| ()), Err(PostError::Ended));
}

#[test]
fn what_a_callback_posts_waits_for_a_reactor_that_is_held_up_and_is_not_lost() {
    let limits = Limits { mailbox_capacity: 1, ..Limits::default() };
    let server = Whisper::serve(Config { limits, ..config(2) });
    let remote = server.remote();
    let name = name_on(0, 2, "poster-");
    let mut raw = open(&server, &name);
    let mut bystander = open(&server, &name_on(0, 2, "bystander-"));
    let (let_go, wait) = channel::<()>();
    let (entered, has_entered) = channel();
    let hold = move |_: &mut Whisper, _: &mut ReactorContext<'_, Whisper>| {
        entered.send(()).unwrap();
        let _ = wait.recv();
    };
    remote.post(1, hold).unwrap();
    has_entered.recv_timeout(PATIENCE).unwrap();
    for n in 0..100 {
        raw.say(&format!("@1 {n}"));
    }
    raw.say("who");
    // Others of its reactor go on, while it waits for the other reactor.
    bystander.say("who");
    assert!(bystander.text().starts_with("0/"));
    let_go.send(()).unwrap();
    assert!(raw.text().starts_with("0/"));
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let (tell, told) = channel();
    eventually("all have run, in their order", || {
        let (tell, expected) = (tell.clone(), expected.clone());
        let look = move |whisper: &mut Whisper, _: &mut ReactorContext<'_, Whisper>| {
            tell.send(whisper.notes == expected).unwrap();
        };
        remote.post(1, look).is_ok() && told.recv_timeout(PATIENCE).unwrap()
    });
    // There is no such reactor: a defect, which costs the connection that has it.
    quiet_reactors();
    raw.say("@2 words");
    assert_eq!(raw.close(), (1011, "internal error".to_owned()));
    server.shutdown();
    assert_eq!(server.join().panicked, 0);
}

#[test]
fn a_post_that_panics_ends_its_connection_or_nothing() {
    struct Fragile;
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("as planned: the drop of what a post holds");
        }
    }

    quiet_reactors();
    let server = Whisper::serve(config(1));
    let (mut ann, mut bob) = (open(&server, "ann"), open(&server, "bob"));
    let remote = server.remote();
    remote.post(0, |_, _| panic!("as planned")).unwrap();
    remote.post_to(Recipient::session("ann"), |_, _| panic!("as planned")).unwrap();
    let fragile = Fragile;
    remote
        .post_to(Recipient::session("nobody"), move |_, _| {
            let _ = &fragile;
        })
        .unwrap();
    assert_eq!(ann.close(), (1011, "internal error".to_owned()));
    bob.say("who");
    assert!(bob.text().starts_with("0/"));
    eventually("all three are counted", || {
        metric(&server.metrics(), "revolve_panics_total", "") == 3
    });
    end(server);
}

#[test]
fn what_posts_send_to_a_peer_that_reads_nothing_is_bounded() {
    let config = Config { max_send_buffer: 64 << 10, ..config(1) };
    let server = Whisper::serve(config);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.addresses()[0].tcp().unwrap().into()).unwrap();
    let mut deaf = Raw::new(socket.into());
    deaf.send(upgrade("session_id=deaf"));
    assert_eq!(deaf.head().status, 101);
    let mut bob = open(&server, "bob");
    let remote = server.remote();
    let words = "x".repeat(200_000);
    eventually("it is closed as a slow consumer", || {
        let words = words.clone();
        let _ = remote.post_to(Recipient::session("deaf"), move |_, cx| cx.send_text(&words));
        metric(&server.metrics(), "revolve_closed_total", "code=\"1008\"") == 1
    });
    bob.say("who");
    assert!(bob.text().starts_with("0/"));
    drop(deaf);
    end(server);
}
