//! A node's way to Redis: a TCP proxy that passes bytes on, or does what networks do.
//!
//! A thread for each direction of each connection. What it is to do can be changed while it runs. Decides nothing about
//! what passes. Started by the tests; ends with the value.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::own_host;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They pass.
    Fair,
    /// They pass, so much later.
    Slow(Duration),
    /// They are dropped, and nobody is told: connections stay open.
    Silent,
    /// Connections end, and none is made.
    Cut,
    /// Each connection ends behind about so many bytes, in the middle of what was sent.
    Halved(u64),
}

#[derive(Debug)]
struct State {
    weather: Mutex<Weather>,
    target: Mutex<String>,
    is_over: AtomicBool,
    /// Connections that were halved.
    halved: AtomicU64,
    /// Both sides of all connections, so that they can be ended.
    streams: Mutex<Vec<TcpStream>>,
}

impl State {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    fn end_all(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // One that has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    host: String,
    state: Arc<State>,
}

/// The port of both sides, as Redis has it.
const PORT: u16 = 6379;

impl Wire {
    /// To the Redis at this host.
    pub(crate) fn to(target: &str) -> Wire {
        let host = own_host();
        let listener = TcpListener::bind((host.as_str(), PORT)).expect("an address of our own");
        let state = Arc::new(State {
            weather: Mutex::new(Weather::Fair),
            target: Mutex::new(target.to_owned()),
            is_over: AtomicBool::new(false),
            halved: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let of_listener = state.clone();
        thread::spawn(move || accept(&listener, &of_listener));
        Wire { host, state }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// From now on. Connections that have lost bytes end when it clears up.
    pub(crate) fn set(&self, weather: Weather) {
        let former = std::mem::replace(&mut *self.state.weather.lock().unwrap(), weather);
        if weather == Weather::Cut || former == Weather::Silent {
            self.state.end_all();
        }
    }

    /// Leads to another Redis from now on.
    pub(crate) fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.state.target.lock().unwrap());
        self.state.end_all();
    }

    /// Connections that were halved.
    pub(crate) fn halved(&self) -> u64 {
        self.state.halved.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        self.state.end_all();
        // So that `accept` returns. If it has not been waiting, it is over all the same.
        let _ = TcpStream::connect((self.host.as_str(), PORT));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for inner in listener.incoming().map_while(Result::ok) {
        if state.is_over.load(Ordering::Acquire) {
            return;
        }
        if state.weather() == Weather::Cut {
            continue;
        }
        let target = state.target.lock().unwrap().clone();
        let Ok(outer) = TcpStream::connect((target.as_str(), PORT)) else { continue };
        let _ = (inner.set_nodelay(true), outer.set_nodelay(true));
        let mut streams = state.streams.lock().unwrap();
        for stream in [&inner, &outer] {
            streams.push(stream.try_clone().expect("a descriptor"));
        }
        for (from, into) in [(&inner, &outer), (&outer, &inner)] {
            let [from, into] = [from, into].map(|stream| stream.try_clone().expect("a descriptor"));
            let state = state.clone();
            thread::spawn(move || pass(from, into, &state));
        }
    }
}

/// Passes on what comes from one side, until either ends.
fn pass(mut from: TcpStream, mut into: TcpStream, state: &State) {
    let (mut room, mut passed) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut room) {
        let mut bytes = &room[..count];
        passed += count as u64;
        match state.weather() {
            Weather::Fair => {}
            Weather::Slow(time) => thread::sleep(time),
            Weather::Silent => continue,
            Weather::Cut => break,
            Weather::Halved(most) if passed > most => {
                bytes = &bytes[..count / 2];
                state.halved.fetch_add(1, Ordering::Relaxed);
                let _ = into.write_all(bytes);
                break;
            }
            Weather::Halved(_) => {}
        }
        if into.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
}
