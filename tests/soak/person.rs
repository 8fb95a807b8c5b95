//! One client's model of its session, and its next whim. Knows no sockets.
//!
//! Invariant: the session's true count lies between `acked` and `acked + unsure`.

use std::collections::VecDeque;
use std::time::Duration;

use super::simulation::chance::Chance;

/// Events of a history that are kept.
const HISTORY_MOST: usize = 60;

pub(crate) struct Person {
    pub(crate) number: usize,
    pub(crate) chance: Chance,
    /// Its session's name: its own choice, or what the server called it.
    pub(crate) session: Option<String>,
    /// The highest count it was told.
    pub(crate) acked: u64,
    /// Messages said on former connections, of which it was not told whether they were counted.
    pub(crate) unsure: u64,
    history: VecDeque<String>,
}

/// What somebody does next with an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whim {
    /// Some messages.
    Count(u64),
    /// Nothing.
    Idle,
    /// Gone without a word, by FIN; half of them in the middle of a frame.
    Vanish,
    Reset,
    /// Reads nothing for so long.
    Stall(Duration),
    /// A second connection of the same session, beside the first.
    TakeOver,
    Quit,
    /// In good order.
    Close,
}

impl Person {
    pub(crate) fn new(number: usize, seed: u64) -> Person {
        let mut chance = Chance(seed.wrapping_mul(0x1000_0001).wrapping_add(number as u64));
        // Two in three choose their name.
        let session = (chance.within(0, 2) > 0).then(|| format!("soak-{seed}-{number}"));
        Person { number, chance, session, acked: 0, unsure: 0, history: VecDeque::new() }
    }

    pub(crate) fn note(&mut self, event: String) {
        if self.history.len() == HISTORY_MOST {
            self.history.pop_front();
        }
        self.history.push_back(event);
    }

    pub(crate) fn whim(&mut self) -> Whim {
        let chance = &mut self.chance;
        match chance.within(0, 99) {
            0..=49 => Whim::Count(chance.within(1, 6) as u64),
            50..=51 => Whim::Count(chance.within(50, 400) as u64),
            52..=61 => Whim::Idle,
            62..=71 => Whim::Vanish,
            72..=79 => Whim::Reset,
            80..=83 => Whim::Stall(Duration::from_millis(chance.within(200, 20_000) as u64)),
            84..=91 => Whim::TakeOver,
            92..=95 => Whim::Quit,
            _ => Whim::Close,
        }
    }

    /// Time until the next whim.
    pub(crate) fn pause(&mut self) -> Duration {
        let most = self.chance.pick(&[20, 200, 1000, 3000]);
        Duration::from_millis(self.chance.within(1, most) as u64)
    }

    /// A connection opened, and the server says how far the session has counted.
    pub(crate) fn opened(&mut self, count: u64) {
        self.note(format!("opened at {count} ({} + {})", self.acked, self.unsure));
        if count < self.acked {
            self.fail(&format!("{} counts were acknowledged, and {count} are left", self.acked));
        }
        if count > self.acked + self.unsure {
            self.fail(&format!("{count} counted, {} said", self.acked + self.unsure));
        }
        self.acked = count;
        // A session that never counted is not kept, so what was given up before may yet begin one.
        if count > 0 {
            self.unsure = 0;
        }
    }

    /// Stops everything: this must not happen.
    pub(crate) fn fail(&self, what: &str) -> ! {
        eprintln!("\nclient {} ({:?}): {what}", self.number, self.session);
        for event in &self.history {
            eprintln!("    {event}");
        }
        panic!("client {}: {what}", self.number);
    }
}
