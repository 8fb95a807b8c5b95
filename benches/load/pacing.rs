//! Messages at fixed times, whether or not the replies have come, and how long each reply took.
//!
//! A latency counts from the time that its message was due, so a server that stalls cannot hide it by
//! stalling the client. It opens no connection and reads no clock of the server; `scenarios.rs` and
//! `storm.rs` step it until all is answered.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::client::{Client, Script};

/// How long after the last message its reply may come.
const GRACE: Duration = Duration::from_secs(5);

/// A load of so many messages a second, over the connections of one client in turn.
pub(crate) struct Paced {
    start: Instant,
    rate: u32,
    total: u64,
    deadline: Instant,
    sent: u64,
    answered: u64,
    connections: usize,
    /// Nanoseconds, by class of the connection.
    latencies: Vec<Histogram<u64>>,
}

impl Paced {
    /// `rate` messages a second for `span`, beginning now, over `connections` open connections.
    pub(crate) fn begin(
        rate: u32,
        span: Duration,
        connections: usize,
        classes: usize,
    ) -> Result<Self> {
        let start = Instant::now();
        let latencies =
            (0..classes).map(|_| Histogram::new(3)).collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            start,
            rate,
            total: (span.as_secs_f64() * f64::from(rate)) as u64,
            deadline: start + span + GRACE,
            sent: 0,
            answered: 0,
            connections,
            latencies,
        })
    }

    fn due(&self, n: u64) -> Instant {
        self.start + Duration::from_nanos(n * 1_000_000_000 / u64::from(self.rate))
    }

    /// Sends what is due and reads what has come, without sleeping. `class` says of a connection, by
    /// its number, whose latency it is. True once every message is answered.
    pub(crate) fn step(
        &mut self,
        client: &mut Client,
        script: &Script,
        class: impl Fn(usize) -> usize,
    ) -> Result<bool> {
        let now = Instant::now();
        // A few at a time: catching up must not keep the client from reading.
        for _ in 0..16 {
            let due = self.due(self.sent);
            if self.sent == self.total || due > now {
                break;
            }
            let connection =
                client.get(self.sent as usize % self.connections).ok_or("no connection")?;
            connection.due.push_back(due);
            connection.send(script)?;
            self.sent += 1;
        }
        client.turn(Some(Duration::ZERO), script, |connection, progress| {
            let now = Instant::now();
            for _ in 0..progress.replies {
                let due = connection.due.pop_front().ok_or("a reply too many")?;
                let latencies = &mut self.latencies[class(connection.number)];
                latencies.record((now - due).as_nanos() as u64)?;
            }
            self.answered += progress.replies;
            Ok(())
        })?;
        if now > self.deadline {
            let late = self.total - self.answered;
            return Err(format!("it cannot keep {} a second: {late} are late", self.rate).into());
        }
        Ok(self.answered == self.total)
    }

    /// Messages asked for, and so answered at the end.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latency below which this share of the class's replies stayed, in µs.
    pub(crate) fn micros_at(&self, class: usize, quantile: f64) -> f64 {
        self.latencies[class].value_at_quantile(quantile) as f64 / 1e3
    }
}
