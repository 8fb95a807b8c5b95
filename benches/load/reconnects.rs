//! Clients that connect, send one message, are answered, close, and are followed by the next.
//!
//! So many of them are under way at once. They make new sessions, or resume those of a list of ids;
//! then each must be answered with the count that follows its session's last one. It takes no time
//! and reads no figure: `scenarios.rs` and `storm.rs` do.

use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Client, Script};

/// How long no connection may end while some are under way.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Reconnects {
    /// Connections under way at once.
    places: usize,
    /// Taken in turn; with none of them each connection makes a new one.
    sessions: Vec<Session>,
    begun: usize,
    pub(crate) done: usize,
    last_end: Instant,
}

struct Session {
    id: String,
    /// What it has counted.
    count: u64,
    /// It has a connection. A second one would displace it.
    connected: bool,
}

impl Reconnects {
    pub(crate) fn new(places: usize, ids: Vec<String>) -> Self {
        let session = |id| Session { id, count: 0, connected: false };
        let sessions = ids.into_iter().map(session).collect();
        Self { places, sessions, begun: 0, done: 0, last_end: Instant::now() }
    }

    /// Begins connections until all places are taken, or the next session is.
    pub(crate) fn fill(&mut self, client: &mut Client) -> Result<()> {
        while self.begun - self.done < self.places {
            match self.begun.checked_rem(self.sessions.len()) {
                None => client.connect(self.begun, 0, "")?,
                Some(n) => {
                    let Session { id, count, connected } = &mut self.sessions[n];
                    if std::mem::replace(connected, true) {
                        return Ok(());
                    }
                    client.connect(self.begun, *count, &format!("?session_id={id}"))?;
                }
            }
            self.begun += 1;
        }
        Ok(())
    }

    /// Takes the connections one step further.
    pub(crate) fn turn(
        &mut self,
        client: &mut Client,
        script: &Script,
        timeout: Duration,
    ) -> Result<()> {
        let before = self.done;
        client.turn(Some(timeout), script, |connection, progress| {
            if progress.opened {
                connection.send(script)?;
            }
            if progress.replies > 0 {
                connection.close(script)?;
            }
            if progress.ended {
                self.done += 1;
                if let Some(n) = connection.number.checked_rem(self.sessions.len()) {
                    let session = &mut self.sessions[n];
                    (session.count, session.connected) = (connection.count, false);
                }
            }
            Ok(())
        })?;
        if self.done > before || self.is_idle() {
            self.last_end = Instant::now();
        } else if self.last_end.elapsed() > PATIENCE {
            return Err(format!("{} connections are stuck", self.begun - self.done).into());
        }
        Ok(())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.begun == self.done
    }

    /// Runs for `span`, and until every session has had a connection; then waits for the last ones to
    /// end. Returns how many have ended.
    pub(crate) fn run(
        &mut self,
        client: &mut Client,
        script: &Script,
        span: Duration,
    ) -> Result<u64> {
        let (start, before) = (Instant::now(), self.done);
        self.last_end = start;
        loop {
            if start.elapsed() < span || self.begun < self.sessions.len() {
                self.fill(client)?;
            }
            if self.is_idle() {
                return Ok((self.done - before) as u64);
            }
            self.turn(client, script, Duration::from_millis(100))?;
        }
    }
}
