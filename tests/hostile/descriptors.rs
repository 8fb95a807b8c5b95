//! Too few descriptors, and too many connections at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::client::{PATIENCE, Raw, TEXT, frame, get, metric, upgrade};
use crate::daemon::Daemon;
use revolve::memory::descriptor_limit;

fn without_descriptors(app: &str) {
    let daemon = Daemon::start(Some(60), &["--app", app, "--workers", "2", "--no-access-log"]);
    let mut talkers: Vec<_> = (0..10).map(|_| daemon.open("")).collect();
    let mut probe = daemon.connect();
    daemon.page(&mut probe);
    // More than there are descriptors for: those who are too many wait to be accepted.
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let paused = daemon.wait_for(&mut probe, "revolve_accept_pauses_total", |n| n > 0);
    // (Those that it inherited with higher numbers are not in the limit.)
    assert!(daemon.descriptors() >= 60);

    // It does not spin: a pause is 100 ms, so each reactor looks ten times a second, and sleeps in
    // between. (Handshakes that nobody ends have ten seconds, so nothing is freed meanwhile.)
    let (before, begin) = (daemon.processor_time(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let after = daemon.page(&mut probe);
    let (used, passed) = (daemon.processor_time() - before, begin.elapsed());
    let grown = |name| metric(&after, name, "") - metric(&paused, name, "");
    let turns = grown("revolve_turns_total");
    let most = 2 * (passed.as_millis() as u64 / 100) + 40;
    assert!(turns <= most, "{turns} turns in {passed:?}");
    assert!(used * 50 < passed, "{used:?} of processor time in {passed:?}");

    // Those inside go on.
    for round in 0..20 {
        for talker in &mut talkers {
            talker.send(frame(TEXT, format!("{round}")));
            let reply = talker.text();
            let expected = match app {
                "counter" => format!("{{\"count\": {}}}", round + 1),
                _ => format!("{round}"),
            };
            assert_eq!(reply, expected);
        }
        // Asked now and then, the connection is kept: another one could not be had.
        daemon.page(&mut probe);
    }

    // When the crowd leaves there is room, and whoever waits or comes then gets in.
    let mut waiting = Raw::new(TcpStream::connect(daemon.address).unwrap());
    waiting.send(upgrade(""));
    drop(crowd);
    assert_eq!(waiting.head().status, 101);
    let mut late = daemon.open("");
    late.send(frame(TEXT, "x"));
    late.text();
    daemon.wait_for(&mut probe, "revolve_connections", |n| n == 10 + 3);
    drop((talkers, waiting, late, probe));
    let log = daemon.stop();
    // It says so, and does not fill the disk with it.
    let told = log.lines().filter(|line| line.contains("cannot accept connections")).count();
    assert!((1..=2).contains(&told), "{told} lines\n{log}");
}

#[test]
fn descriptors_used_up() {
    without_descriptors("counter");
    without_descriptors("echo");
}

#[test]
fn an_accept_storm_against_talking_connections() {
    // Each side needs a descriptor for each of them.
    let room = descriptor_limit().unwrap_or(1024);
    let (talkers, storm) = match room {
        4000.. => (1000, 10_000),
        _ => (room / 8, room * 4),
    };
    if talkers < 1000 {
        println!("notice: only {room} descriptors, so {talkers} talkers and a storm of {storm}");
    }
    let daemon = Daemon::start(None, &["--workers", "2", "--no-access-log", "--heartbeat", "0"]);
    let mut probe = daemon.connect();
    let is_over = AtomicBool::new(false);
    // A thousand threads would be a storm of another kind: each of these speaks for many.
    const THREADS: usize = 8;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let speakers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (daemon, is_over) = (&daemon, &is_over);
                scope.spawn(move || {
                    let mine = (0..talkers).filter(|n| n % THREADS == thread);
                    let mut raws: Vec<_> =
                        mine.map(|n| daemon.open(&format!("session_id=talker-{n}"))).collect();
                    let (mut count, mut left) = (0, 2);
                    while left > 0 {
                        raws.iter_mut().for_each(|raw| raw.send(frame(TEXT, "x")));
                        count += 1;
                        for raw in &mut raws {
                            assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
                        }
                        left -= usize::from(is_over.load(Ordering::Relaxed));
                    }
                    (raws, count)
                })
            })
            .collect();
        daemon.wait_for(&mut probe, "revolve_websockets", |n| n == talkers as u64);
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let (daemon, answered) = (&daemon, &answered);
                scope.spawn(move || {
                    // As many at once as a thread can hold, and then the next ones.
                    let mut sent = 0;
                    while sent < storm / 4 {
                        let batch: Vec<_> = (0..250.min(storm / 4 - sent))
                            .map(|n| call(daemon, caller + n))
                            .collect();
                        sent += batch.len();
                        for stream in batch {
                            answered.fetch_add(usize::from(hears(stream)), Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        for speaker in speakers {
            let (raws, count) = speaker.join().unwrap();
            assert!(count > 3, "they talked all the while");
            for raw in &raws {
                raw.stream.set_nonblocking(true).unwrap();
                assert!(raw.stream.peek(&mut [0]).is_err(), "a reply for each message, no more");
            }
        }
    });
    // Each of the storm was accepted and answered, for there was room.
    assert_eq!(answered.into_inner(), storm / 4 * 4);
    // The first one has been silent for longer than a kept-alive connection may be, perhaps.
    drop(probe);
    let mut probe = daemon.connect();
    let page = daemon.wait_for(&mut probe, "revolve_connections", |n| n == 1);
    assert_eq!(metric(&page, "revolve_accepts_total", "") as usize, talkers + storm / 4 * 4 + 2);
    assert_eq!(metric(&page, "revolve_sessions_detached", "") as usize, talkers);
    drop(probe);
    daemon.stop();
}

/// Connects, and asks: a third for a WebSocket, a third for a page, a third for nothing of the kind.
fn call(daemon: &Daemon, number: usize) -> TcpStream {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(daemon.address) {
            Ok(mut stream) => {
                let request = match number % 3 {
                    0 => upgrade(""),
                    1 => get("/healthz").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
                    _ => "\u{16}\u{3}\u{1}".to_owned(),
                };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                return stream;
            }
            // Its accept queue is full: the kernel says so in its own way, and one comes again.
            Err(error) => assert!(begin.elapsed() < 3 * PATIENCE, "{error}"),
        }
    }
}

/// Whether an answer comes; then it leaves, without a word.
fn hears(mut stream: TcpStream) -> bool {
    let mut room = [0; 4096];
    let count = stream.read(&mut room).unwrap_or(0);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    room[..count].starts_with(b"HTTP/1.1 ")
}
