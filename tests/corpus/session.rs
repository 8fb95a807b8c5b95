//! Session ids, queries, and the table, each against a model that is slower and plainer.
//!
//! Input: a byte that says how long the query is, the query, then what happens to a table, two
//! bytes a step.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use revolve::config::SessionIds;
use revolve::session::{
    EndedSession, IdSource, Joining, SessionEnd, SessionId, SessionSlot, SessionTable, owner_of,
};
use revolve::token::LocalId;

pub(crate) fn run(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let (query, steps) = rest.split_at(rest.len().min(usize::from(length) * 2));
    if let Ok(query) = std::str::from_utf8(query) {
        check_query(query);
    }
    check_table(steps);
}

fn check_query(query: &str) {
    let wanted = SessionId::from_query(query);
    let expected = read_plainly(query);
    let got = wanted.as_ref().map(|id| {
        let id = id.as_ref()?;
        Some(id.text().as_str().to_owned())
    });
    assert_eq!(got.ok(), expected);
    let Ok(Some(id)) = wanted else { return };
    let text = id.text();
    let text = text.as_str();
    assert!(SessionId::parse(text).is_ok_and(|again| again == id), "an id is its text");
    for workers in 1..=9 {
        assert!(owner_of(text, workers) < workers);
    }
    assert!(text.starts_with(&id.prefix()) && id.prefix().len() == (text.len() / 2).min(8));
    // The whole form, and not "the id is not in it": a client may choose the id `SessionId`.
    assert_eq!(format!("{id:?}"), format!("SessionId({}…)", id.prefix()), "what a log may say");
}

/// The session named, if one is; `None` where the query must be refused.
fn read_plainly(query: &str) -> Option<Option<String>> {
    let mut parameters = HashMap::new();
    for parameter in query.split('&').rev() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        parameters.insert(name, value);
    }
    match parameters.get("session_id") {
        None | Some(&"") => Some(None),
        Some(value) => {
            let mut id = String::new();
            let mut rest = *value;
            while let Some(next) = rest.chars().next() {
                let decoded = if next == '%' {
                    let digits = rest.get(1..3)?;
                    // `from_str_radix` would take a sign.
                    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                        return None;
                    }
                    rest = &rest[3..];
                    char::from(u8::from_str_radix(digits, 16).ok()?)
                } else {
                    rest = &rest[next.len_utf8()..];
                    next
                };
                if !decoded.is_ascii_alphanumeric() && !"-._~".contains(decoded) {
                    return None;
                }
                id.push(decoded);
            }
            (1..=128).contains(&id.len()).then_some(Some(id))
        }
    }
}

/// What a plain map would know of a session.
#[derive(Debug, Clone)]
struct Known {
    count: u64,
    is_touched: bool,
    presence: Presence,
}

impl Known {
    fn speakers(&self) -> &[LocalId] {
        match &self.presence {
            Presence::Attached(speakers, _) => speakers,
            Presence::Detached(..) => &[],
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Presence {
    /// Those who speak for it, in the order of coming.
    Attached(Vec<LocalId>, SessionSlot),
    /// Since when, and as the how-manieth.
    Detached(Instant, u64),
}

struct Model {
    known: HashMap<String, Known>,
    ttl: Duration,
    capacity: usize,
    detachments: u64,
    /// Those that have ended in this step: id, count and why.
    ended: Vec<(String, u64, SessionEnd)>,
}

impl Model {
    fn end(&mut self, name: &str, reason: SessionEnd) {
        let Some(known) = self.known.remove(name) else { panic!("{name} is not known") };
        self.ended.push((name.to_owned(), known.count, reason));
    }

    fn is_due(&self, name: &str, now: Instant) -> bool {
        let known = self.known.get(name);
        matches!(known, Some(Known { presence: Presence::Detached(since, _), .. })
            if *since + self.ttl <= now)
    }

    fn detached(&self) -> Vec<(u64, String)> {
        let order = |(name, known): (&String, &Known)| match known.presence {
            Presence::Detached(_, order) => Some((order, name.clone())),
            Presence::Attached(..) => None,
        };
        let mut detached: Vec<_> = self.known.iter().filter_map(order).collect();
        detached.sort();
        detached
    }

    fn detach(&mut self, name: &str, now: Instant) {
        let Some(known) = self.known.get_mut(name) else { panic!("{name} is not known") };
        if (known.count == 0 && !known.is_touched) || self.ttl.is_zero() {
            return self.end(name, SessionEnd::NotKept);
        }
        self.detachments += 1;
        known.presence = Presence::Detached(now, self.detachments);
        let detached = self.detached();
        if detached.len() > self.capacity {
            self.end(&detached[0].1, SessionEnd::Evicted);
        }
    }

    fn expire(&mut self, now: Instant, most: usize) {
        for (_, name) in self.detached().into_iter().take(most) {
            if self.is_due(&name, now) {
                self.end(&name, SessionEnd::Expired);
            }
        }
    }
}

/// Randomness, of a kind.
fn draw(drawn: &mut u8, room: &mut [u8]) -> std::io::Result<()> {
    *drawn = drawn.wrapping_add(1);
    room.fill_with(|| {
        *drawn = drawn.wrapping_mul(37).wrapping_add(11);
        *drawn
    });
    // Sixteen equal bytes a row would repeat.
    room.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte ^= at as u8);
    Ok(())
}

fn check_table(steps: &[u8]) {
    let Some((&[style, issued], steps)) = steps.split_first_chunk() else { return };
    let ttl = Duration::from_secs(u64::from(style % 4) * 3);
    let capacity = 1 + usize::from(style / 4 % 4);
    let issues = issued % 2 == 1;
    let policy = if issues { SessionIds::Issued } else { SessionIds::Any };
    let mut now = Instant::now();
    let mut table: SessionTable<u8> = SessionTable::new(capacity, ttl, policy, now);
    let mut model =
        Model { known: HashMap::new(), ttl, capacity, detachments: 0, ended: Vec::new() };
    let ended = RefCell::new(Vec::new());
    let note = |session: EndedSession<u8>| {
        let (id, count, reason) = (session.session_id(), session.count(), session.reason());
        ended.borrow_mut().push((id, count, reason));
    };
    let mut ids = IdSource::new(usize::from(issued % 3), 3);
    let mut drawn = 0u8;
    let mut generation = NonZeroU32::MIN;
    let mut issued_names = vec!["nobody".to_owned()];
    // Every second input in steps of two bytes; what a step needs besides comes from its second.
    for (number, &[what, which]) in steps.as_chunks().0.iter().take(300).enumerate() {
        let name = match which % 4 {
            0 => issued_names[usize::from(which / 4) % issued_names.len()].clone(),
            _ => format!("s{}", which % 8),
        };
        match what % 6 {
            0 | 1 => {
                let id = SessionId::parse(&name).expect("such names are ids");
                let id = (what % 6 == 0 || which % 4 != 3).then_some(id);
                let shares = number % 3 == 0;
                let joining = if shares { Joining::Shares } else { Joining::TakesOver };
                let older = id.as_ref().map_or(Vec::new(), |id| table.connections_of(id).to_vec());
                let known = model.known.get(&name).filter(|_| id.is_some());
                let held = known.map_or(&[][..], |known| known.speakers());
                assert_eq!(held, older, "who speaks for {name}");
                // A takeover: the older connections leave it to the newer one.
                if !shares {
                    for older in older {
                        if let Some(known) = model.known.get_mut(&name)
                            && let Presence::Attached(speakers, slot) = &mut known.presence
                        {
                            table.displace(*slot, older, now, note);
                            speakers.retain(|&speaker| speaker != older);
                        }
                    }
                }
                let connection = LocalId::new(number as u32, generation);
                generation = generation.saturating_add(1);
                let attached = table
                    .attach(
                        id.as_ref(),
                        (connection, joining),
                        now,
                        || ids.next(|room| draw(&mut drawn, room)),
                        note,
                    )
                    .expect("there is randomness");
                if model.is_due(&name, now) && id.is_some() {
                    model.end(&name, SessionEnd::Expired);
                }
                let session = table.of_connection(attached.slot, connection).expect("its own");
                let got = session.id().text().as_str().to_owned();
                let known = if id.is_some() { model.known.get(&name) } else { None };
                assert_eq!(attached.resumed, known.is_some());
                let mut known = known.cloned().unwrap_or(Known {
                    count: 0,
                    is_touched: false,
                    presence: Presence::Detached(now, 0),
                });
                assert_eq!(session.count(), known.count, "{got} came back with another count");
                if attached.resumed || (id.is_some() && !issues) {
                    assert_eq!(got, name);
                } else {
                    assert_eq!(owner_of(&got, 3), usize::from(issued % 3));
                    if model.known.contains_key(&got) {
                        // The generator above has run round, which a real one does not.
                        return;
                    }
                    issued_names.push(got.clone());
                }
                let speakers = [known.speakers(), &[connection]].concat();
                assert_eq!(session.connections(), speakers.len());
                known.presence = Presence::Attached(speakers, attached.slot);
                model.known.insert(got, known);
            }
            2 | 3 => {
                if let Some(known) = model.known.get_mut(&name)
                    && let Presence::Attached(speakers, slot) = &known.presence
                {
                    let speaker = speakers[number % speakers.len()];
                    let slot = *slot;
                    let session = table.of_connection(slot, speaker).expect("its own");
                    if what % 6 == 2 {
                        known.count += 1;
                        assert_eq!(session.count_message(), known.count);
                    } else {
                        *session.state_mut() = 1;
                        known.is_touched = true;
                    }
                    let stranger = LocalId::new(u32::MAX, generation);
                    assert!(table.of_connection(slot, stranger).is_none(), "the fence is open");
                }
            }
            4 => {
                if let Some(known) = model.known.get_mut(&name)
                    && let Presence::Attached(speakers, slot) = &mut known.presence
                {
                    let leaver = speakers.remove(number % speakers.len());
                    table.detach(*slot, leaver, now, note);
                    assert!(table.in_slot(*slot, leaver).is_none(), "it has left");
                    if speakers.is_empty() {
                        model.detach(&name, now);
                    }
                }
            }
            _ => {
                now += Duration::from_secs(u64::from(which / 8));
                table.expire(now, usize::from(which % 8), note);
                model.expire(now, usize::from(which % 8));
            }
        }
        table.invariants();
        assert_eq!(ended.take(), std::mem::take(&mut model.ended));
        assert_eq!(table.attached() + table.detached(), model.known.len());
        assert_eq!(table.detached(), model.detached().len());
        for (id, count) in table.counts() {
            let known = model.known.get(id.text().as_str());
            assert_eq!(known.map(|known| known.count), Some(count), "{id:?}");
        }
    }
}
