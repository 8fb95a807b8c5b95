//! The codec of TLS, fed with what its client says, cut and damaged as the input wants it, and with any other bytes.
//!
//! An input is a script: a byte for the version and the room, then a byte for each step and one for how much. While
//! nothing is damaged both ends hear what the other has said; whatever comes, what is kept is bounded, and who has failed
//! stays so. Keys and randomness are rustls's own, so a script's ciphertext differs from run to run, its lengths do not.

use std::cell::OnceCell;
use std::sync::Arc;

use revolve::transport::tls::{PARTIAL_MOST, Phase, TlsAcceptor, TlsScratch, TlsSession};

use super::simulation::veil::{Veil, server};

thread_local! {
    static ACCEPTOR: OnceCell<Arc<TlsAcceptor>> = const { OnceCell::new() };
}

struct Exchange {
    session: TlsSession,
    client: Veil,
    scratch: TlsScratch,
    room: usize,
    /// What each end has said, and what the other has heard of it.
    said: Vec<u8>,
    heard: Vec<u8>,
    told: Vec<u8>,
    learned: Vec<u8>,
    is_damaged: bool,
    has_left: bool,
}

impl Exchange {
    /// The server reads these bytes.
    fn receive(&mut self, mut bytes: &[u8]) {
        let mut room = vec![0; self.room];
        while !bytes.is_empty() {
            let prepared = self.session.prepare_read(self.room, &mut self.scratch);
            let (begin, end) = prepared.expect("there is memory");
            let (piece, behind) = bytes.split_at(bytes.len().min(end - begin));
            bytes = behind;
            self.scratch.incoming[begin..begin + piece.len()].copy_from_slice(piece);
            let end = begin + piece.len();
            let received = self.session.receive(end, &mut room, &mut self.scratch);
            match received {
                Ok(count) => self.heard.extend_from_slice(&room[..count]),
                Err(_) => {
                    let is_told = self.is_damaged || self.has_left;
                    assert!(is_told, "what was not damaged is refused");
                    assert_eq!(self.session.phase(), Phase::Failed);
                }
            }
            while self.session.has_waiting() {
                let count = self.session.take_waiting(&mut room);
                self.heard.extend_from_slice(&room[..count]);
            }
            self.answer();
        }
        let held = self.session.held_bytes();
        assert!(held < 3 * PARTIAL_MOST, "{held} bytes are kept");
    }

    /// The client hears what the server has to say, unless that is about damage.
    fn answer(&mut self) {
        if !self.is_damaged && !self.has_left {
            self.learned.extend(self.client.hear(self.scratch.outgoing.bytes()));
        }
        self.scratch.outgoing.clear();
    }

    fn step(&mut self, what: u8, count: usize, input: &mut &[u8]) {
        match what % 6 {
            // Some of what the client has to send.
            0 | 1 => {
                let piece = self.client.take(count * 17);
                self.receive(&piece);
            }
            // The same, damaged.
            2 => {
                let mut piece = self.client.take(count * 17);
                let length = piece.len().max(1);
                if let Some(byte) = piece.get_mut(count % length) {
                    *byte ^= 1 << (what >> 5);
                    self.is_damaged = true;
                }
                self.receive(&piece);
            }
            // Anything.
            3 => {
                let (piece, behind) = input.split_at(count.min(input.len()));
                *input = behind;
                self.is_damaged |= !piece.is_empty();
                self.receive(piece);
            }
            4 if !self.has_left => {
                let words = vec![what; count * 11];
                self.client.say(&words);
                self.said.extend(words);
            }
            5 if what < 240 => {
                let words = vec![what; count * 11];
                if self.session.seal(&words, &mut self.scratch.outgoing).is_ok() {
                    self.told.extend(words);
                }
                self.answer();
            }
            _ if what & 1 == 0 => {
                self.client.say_goodbye();
                self.has_left = true;
            }
            _ => {
                self.session.say_goodbye(&mut self.scratch.outgoing).expect("there is memory");
                self.answer();
                // What the client still says goes nowhere.
                self.is_damaged = true;
            }
        }
    }
}

pub(crate) fn run(mut input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    input = rest;
    let acceptor = ACCEPTOR
        .with(|acceptor| acceptor.get_or_init(|| server().expect("this build has TLS")).clone());
    let mut exchange = Exchange {
        session: acceptor.session().expect("there is randomness"),
        client: Veil::new(first & 1 == 1, false).expect("this build has TLS"),
        scratch: TlsScratch::default(),
        room: [1, 300, 4096, 70_000][usize::from(first >> 1) % 4],
        said: Vec::new(),
        heard: Vec::new(),
        told: Vec::new(),
        learned: Vec::new(),
        is_damaged: false,
        has_left: false,
    };
    while let [what, count, behind @ ..] = input {
        input = behind;
        exchange.step(*what, usize::from(*count), &mut input);
    }
    if exchange.is_damaged || exchange.has_left {
        return;
    }
    // Undisturbed, all arrives.
    while exchange.client.unsent() > 0 {
        let piece = exchange.client.take(5000);
        exchange.receive(&piece);
    }
    assert_eq!(exchange.session.phase(), Phase::Established);
    assert_eq!(exchange.heard, exchange.said);
    assert_eq!(exchange.learned, exchange.told);
}
