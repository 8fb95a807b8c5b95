//! The hand-over storm: many clients of one server reconnect at once, again and again, while others
//! send a message now and then.
//!
//! Four reactors, all on the servers' core. The storm is run three times with the same clients: they
//! make new sessions (so nothing is handed over), they resume sessions that are spread over the
//! reactors, and they resume sessions that all belong to reactor 0. Each *bystander* resumes a session
//! of its own when it connects, so it is known on which reactor it is. Only revolve has reactors:
//! `scenarios.rs` runs this for it alone and names its figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use revolve::owner_of;

use crate::Result;
use crate::client::Client;
use crate::cpu::Reading;
use crate::pacing::Paced;
use crate::reconnects::Reconnects;
use crate::scenarios::{Outcome, Run, micros, settled, share_waited, told};
use crate::servers::Flavour;

const REACTORS: usize = 4;
/// Clients that are connecting, or connected, at any time.
const PLACES: usize = 256;
const SESSIONS: usize = 1000;
/// Bystanders, as many on each reactor.
const BYSTANDERS: usize = 64;
/// Messages a second of all bystanders.
const RATE: u32 = 1000;
/// Events of the storm that the client handles before it looks at the bystanders again: more would
/// be measured as a wait of theirs.
const STORM_EVENTS: usize = 16;

/// Whose sessions the storm resumes.
#[derive(Clone, Copy)]
enum Ids {
    New,
    OfAll,
    OfReactor0,
}

/// What one storm was like.
struct Storm {
    connections: u64,
    hand_overs: f64,
    used: Reading,
    /// Of the client: what it waited for its core is in every latency.
    client: Reading,
    /// Hand-overs that reactor 0 took, for each of its turns.
    taken_a_turn: f64,
    /// Bystanders on reactor 0, if it alone gets the storm: p50 and p99 in µs.
    at_0: [f64; 2],
    /// The other bystanders.
    elsewhere: [f64; 2],
}

impl Storm {
    fn cost(&self) -> f64 {
        micros(self.used, self.connections)
    }
}

impl Run<'_> {
    /// The figures of `SCENARIOS`' storm, in its order.
    pub(crate) fn storm(&self) -> Result<Outcome> {
        let none = self.one_storm(Ids::New)?;
        let all = self.one_storm(Ids::OfAll)?;
        let one = self.one_storm(Ids::OfReactor0)?;
        // What reconnecting costs without a hand-over is in the storm that has none.
        let hand_over = |storm: &Storm| {
            (storm.cost() - none.cost()) * storm.connections as f64 / storm.hand_overs
        };
        let mut values =
            vec![none.cost(), all.cost(), one.cost(), hand_over(&all), hand_over(&one)];
        values.extend([all.taken_a_turn, one.taken_a_turn]);
        values.extend(none.elsewhere);
        values.extend(all.elsewhere);
        values.extend(one.at_0);
        values.extend(one.elsewhere);
        // The reactors wait for each other, having one core; so only the client tells a disturbed run.
        let waited = [none, all, one].into_iter().map(|storm| share_waited(storm.client));
        Ok(Outcome { values, waited: waited.fold(0.0, f64::max) })
    }

    fn one_storm(&self, ids: Ids) -> Result<Storm> {
        let script = self.script(16, 1);
        let (running, mut client) =
            self.start(Flavour { workers: REACTORS, ..Flavour::default() })?;
        client.limit_events(STORM_EVENTS);
        let mut calm = Client::new(running.address)?;
        let mut reconnects = Reconnects::new(PLACES, sessions(ids));
        told(&running, || {
            let queries = bystanders();
            calm.open_as(BYSTANDERS, &script, |n| queries[n].clone())?;
            // The warm-up also makes the sessions, so that every later connect finds one.
            reconnects.run(&mut client, &script, self.setting.warm_up())?;
            let counters_before = Counters::of(running.address)?;
            let client_before = Reading::of(std::process::id())?;
            let (before, done_before) = (settled(&running)?, reconnects.done);
            let span = self.setting.span() * 2;
            let mut paced = Paced::begin(RATE, span, BYSTANDERS, 2)?;
            let start = Instant::now();
            // A bystander's number names its reactor. Class 0 are those on reactor 0, where it alone
            // gets the storm; class 1 are the others.
            let apart = matches!(ids, Ids::OfReactor0);
            let class = |number: usize| usize::from(!apart || !number.is_multiple_of(REACTORS));
            let mut answered = false;
            while !answered || !reconnects.is_idle() {
                if start.elapsed() < span {
                    reconnects.fill(&mut client)?;
                }
                reconnects.turn(&mut client, &script, Duration::ZERO)?;
                answered = paced.step(&mut calm, &script, class)?;
            }
            let used = settled(&running)?.since(before);
            let client_used = Reading::of(std::process::id())?.since(client_before);
            let counters = Counters::of(running.address)?.since(&counters_before);
            counters.suit(ids)?;
            let quantiles = |class| [0.5, 0.99].map(|at| paced.micros_at(class, at));
            Ok(Storm {
                connections: (reconnects.done - done_before) as u64,
                hand_overs: counters.hand_overs,
                used,
                client: client_used,
                taken_a_turn: counters.taken_by_0 / counters.turns_of_0,
                at_0: quantiles(0),
                elsewhere: quantiles(1),
            })
        })
    }
}

/// Ids of the storm's sessions.
fn sessions(ids: Ids) -> Vec<String> {
    let names = (0..).map(|n| format!("storm-{n}"));
    match ids {
        Ids::New => Vec::new(),
        Ids::OfAll => names.take(SESSIONS).collect(),
        Ids::OfReactor0 => names.filter(|id| owner_of(id, REACTORS) == 0).take(SESSIONS).collect(),
    }
}

/// What each bystander asks for; the n-th is on reactor `n % REACTORS`.
fn bystanders() -> Vec<String> {
    let mut names = (0..).map(|n| format!("bystander-{n}"));
    let of = |reactor: usize| names.find(|id| owner_of(id, REACTORS) == reactor);
    let ids = (0..BYSTANDERS).map(|n| n % REACTORS).filter_map(of);
    ids.map(|id| format!("?session_id={id}")).collect()
}

/// What the server counts of itself.
#[derive(Clone, Copy)]
struct Counters {
    hand_overs: f64,
    taken_by_0: f64,
    turns_of_0: f64,
}

impl Counters {
    fn of(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let sum = |name: &str| -> Result<f64> {
            let values: Vec<f64> = page
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok())
                .collect();
            if values.is_empty() {
                Err(format!("/metrics has no {name}").into())
            } else {
                Ok(values.iter().sum())
            }
        };
        Ok(Self {
            hand_overs: sum("revolve_hand_overs_in_total{")?,
            taken_by_0: sum("revolve_hand_overs_in_total{reactor=\"0\"}")?,
            turns_of_0: sum("revolve_turns_total{reactor=\"0\"}")?,
        })
    }

    /// A storm that is not the one that its figures are named after has none.
    fn suit(&self, ids: Ids) -> Result<()> {
        let suits = match ids {
            Ids::New => self.hand_overs == 0.0,
            Ids::OfAll => self.hand_overs > self.taken_by_0 && self.taken_by_0 > 0.0,
            Ids::OfReactor0 => self.hand_overs == self.taken_by_0 && self.taken_by_0 > 0.0,
        };
        let Self { hand_overs, taken_by_0, .. } = self;
        let what = || format!("{taken_by_0} of {hand_overs} hand-overs went to reactor 0").into();
        suits.then_some(()).ok_or_else(what)
    }

    fn since(self, before: &Self) -> Self {
        Self {
            hand_overs: self.hand_overs - before.hand_overs,
            taken_by_0: self.taken_by_0 - before.taken_by_0,
            turns_of_0: self.turns_of_0 - before.turns_of_0,
        }
    }
}
