//! The two connections to the broker, one for commands and one that listens, and what comes in on them.
//!
//! They are made together, on a thread of their own, because that may wait for a name or for a server that does not
//! answer; and they are given up together, so that there is one state to think of. Knows no task: what comes in is
//! passed on to [`InFlight`]. A broker that is gone without a word is found out by PING. Called by `thread`.
//!
//! Invariant: after an error the link is of no use.
//!
//! Next: `thread`: who turns all of this.

use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::in_flight::{InFlight, Now};
use crate::resp::decoder::Decoder;
use crate::resp::evented::Evented;
use crate::resp::{ConnectOptions, Connection, ConnectionError, Reply, ServerAddress};

/// The token of the connection for commands.
pub const COMMANDS: Token = Token(1);

/// The token of the one that listens.
pub const LISTENING: Token = Token(2);

/// For how long each of them may be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After so long a silence the broker is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(2);

/// After so long a silence it is not.
const SILENCE_MOST: Duration = Duration::from_secs(6);

/// Replies of each connection that are taken in a turn: then deadlines are looked at, whatever the broker says.
const REPLIES_PER_TURN: usize = 1024;

/// Strings in one reply that are kept, at most: the result of a job of RQ has a value or a traceback, and short ones.
const STRINGS_A_REPLY: usize = 3;

/// Two connections that were made and are registered nowhere.
pub type Made = (Connection, Connection);

/// Makes them. Waits.
///
/// # Errors
///
/// What is wrong with the broker.
pub fn connect(address: &ServerAddress) -> Result<Made, ConnectionError> {
    let options = |name: &str| ConnectOptions {
        connect_timeout: CONNECT_TIMEOUT,
        reply_timeout: CONNECT_TIMEOUT,
        client_name: format!("revolve-{name}"),
        // Words, while it is made.
        reply_bytes_most: 1 << 16,
    };
    let commands = Connection::connect(address, &options("tasks"))?;
    let listening = Connection::connect(address, &options("task-results"))?;
    Ok((commands, listening))
}

/// Both connections, registered.
#[derive(Debug)]
pub struct Link {
    commands: Evented,
    listening: Evented,
    /// When each of them has brought something last.
    heard: [Instant; 2],
    /// When they were asked whether the broker is there.
    asked: Instant,
    made: Instant,
}

impl Link {
    /// Registers both. Of a result at most so many bytes are kept.
    ///
    /// # Errors
    ///
    /// If the system does not let them be registered.
    pub fn new(
        (commands, listening): Made,
        result_bytes_most: usize,
        registry: &Registry,
        now: Instant,
    ) -> Result<Link, ConnectionError> {
        // RQ's results are base64.
        let string_most = result_bytes_most.div_ceil(3).saturating_mul(4);
        let most = string_most.saturating_mul(STRINGS_A_REPLY).saturating_add(1 << 16);
        let decoder = || Decoder::new(most).passing_over(string_most);
        let commands = Evented::new(commands, decoder(), (registry, COMMANDS))?;
        let listening = Evented::new(listening, decoder(), (registry, LISTENING))?;
        Ok(Link { commands, listening, heard: [now; 2], asked: now, made: now })
    }

    /// For how long there has been this link.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }

    /// Reads what there is, a share of it: whether there may be more, of which no edge will tell.
    ///
    /// # Errors
    ///
    /// If one of the connections has failed, or the broker says what nobody has asked for.
    pub fn read(&mut self, tasks: &mut InFlight, now: Now) -> Result<bool, ConnectionError> {
        self.commands.begin_turn();
        self.listening.begin_turn();
        let mut is_idle = false;
        for _ in 0..REPLIES_PER_TURN {
            let reply = self.commands.receive()?;
            if let Some(reply) = &reply {
                tasks.replied(reply, now).map_err(|_| ConnectionError::Unexpected)?;
            }
            let event = self.listening.receive()?;
            is_idle = reply.is_none() && event.is_none();
            if let Some(event) = event {
                heard(event, tasks, now)?;
            }
            if is_idle {
                break;
            }
        }
        let connections = [&self.commands, &self.listening];
        for (heard, connection) in self.heard.iter_mut().zip(connections) {
            if connection.has_heard() {
                *heard = now.at;
            }
        }
        Ok(!is_idle || connections.iter().any(|connection| connection.may_have_more()))
    }

    /// Sends what the tasks have for the broker.
    ///
    /// # Errors
    ///
    /// If one of the connections has failed.
    pub fn write(&mut self, tasks: &mut InFlight, now: Now) -> Result<(), ConnectionError> {
        tasks.flow(self.commands.unsent() + self.listening.unsent(), now);
        self.listening.send(tasks.listening())?;
        self.commands.send(tasks.commands())?;
        tasks.sent();
        Ok(())
    }

    /// Asks whether the broker is there, if it has not said anything for a while.
    ///
    /// # Errors
    ///
    /// If it has not for too long.
    pub fn watch(&mut self, tasks: &mut InFlight, now: Instant) -> Result<(), ConnectionError> {
        let silence = self.heard.iter().map(|heard| now.saturating_duration_since(*heard)).max();
        let silence = silence.unwrap_or_default();
        if silence > SILENCE_MOST {
            return Err(ConnectionError::TimedOut);
        }
        if silence > PING_AFTER && now.saturating_duration_since(self.asked) > PING_AFTER {
            self.asked = now;
            tasks.ping();
        }
        Ok(())
    }
}

/// What the connection that listens has brought.
fn heard(reply: Reply, tasks: &mut InFlight, now: Now) -> Result<(), ConnectionError> {
    let elements = match &reply {
        // To one that listens to nothing, PING is answered as to anybody.
        Reply::Simple(_) => return Ok(()),
        Reply::Error(error) => {
            tasks.not_subscribed(&error.to_string(), now);
            return Ok(());
        }
        reply => reply.array().unwrap_or_default(),
    };
    let word = |at: usize| elements.get(at).and_then(Reply::bytes);
    match (word(0), word(1), elements.get(2)) {
        (Some(b"message"), Some(channel), Some(payload)) => tasks.published(channel, payload, now),
        (Some(b"subscribe"), Some(channel), _) => tasks.subscribed(channel, now),
        (Some(b"unsubscribe"), _, _) | (Some(b"pong"), _, _) => {}
        _ => return Err(ConnectionError::Unexpected),
    }
    Ok(())
}
