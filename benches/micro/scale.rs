//! What grows with the number of connections and sessions, and what must not: scenes, each of several
//! steps.
//!
//! A scene is prepared once and its steps follow each other, because a million connections take minutes to
//! open under callgrind. Each turn is counted by itself, so of each step there is the mean of what it does
//! and its longest turn. Small scenes are part of every run, against the baseline and against each other;
//! the large ones are `--scale`'s.
//!
//! Next: `crowd`: the shard that the scenes are played on.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::baseline::Count;
use crate::cases::{self, Parked};
use crate::crowd::Crowd;
use crate::{Result, callgrind, counted};

/// What a step may take beside the same in another scene: as much, but for what the numbers themselves take. A
/// count of twenty thousand has more digits than one of ten.
const MOST: f64 = 1.05;

/// What its longest turn may be beside the other: there a vector may grow, and be copied, once.
const LONGEST_MOST: f64 = 1.1;

/// The scenes of which the first must cost no more than the second, and the steps of which that is asked. The
/// longest turns of a step are compared too, if it has several in both.
const ALIKE: [([&str; 2], &[&str]); 4] = [
    (["crowd-20000", "crowd-64"], &["talk", "empty", "scrape"]),
    (
        ["crowd-20000", "crowd-5000"],
        &["open", "all-talk", "broadcast", "alarm", "ping", "goodbye", "echo", "end"],
    ),
    // Not the echo: the last sessions end with it, and with them the index gives the storage of its peak back.
    (["peak-20000", "few-10"], &["talk", "broadcast", "empty", "scrape", "goodbye", "end"]),
    (["sessions-20000", "sessions-1000"], &["resume", "expire"]),
];

/// The steps of which all turns are alike; and one of which the turns are the bench's own, and grow a table
/// that hashes with another key each time.
const UNIFORM: [&str; 5] = ["talk", "empty", "scrape", "resume", "park"];

/// Prints what costs more among many than among few; returns how many these are.
pub(crate) fn judge(counts: &[Count]) -> usize {
    let of = |name: &str| counts.iter().find(|count| count.name == name).map(|count| count.each);
    let mut worse = 0;
    for ([many, few], steps) in ALIKE {
        let names = steps.iter().flat_map(|step| {
            [((*step).to_owned(), MOST), (format!("{step}/longest"), LONGEST_MOST)]
        });
        for (step, most) in names {
            let both = of(&format!("{many}/{step}")).zip(of(&format!("{few}/{step}")));
            if let Some((among_many, among_few)) = both
                && among_many > most * among_few
            {
                worse += 1;
                println!("{many}/{step} is {:.2} times {few}/{step}", among_many / among_few);
            }
        }
    }
    worse
}

/// What a scene says to itself: play this one, of this size, here and now.
pub(crate) const SCENE: &str = "--scene";

type Scene = (&'static str, fn(usize, &mut Steps));

const SCENES: [Scene; 4] = [("crowd", crowd), ("peak", peak), ("few", few), ("sessions", sessions)];

/// How many of a crowd talk.
const TALKERS: usize = 64;

/// How many are left of a crowd.
const LEFT: usize = 10;

/// The scenes of every run, with their sizes. A crowd of 5,000 is larger than every share of a turn, and so
/// its longest turns are to be the longest of all.
pub(crate) const SMALL: [(&str, usize); 7] = [
    ("crowd", TALKERS),
    ("crowd", 5000),
    ("crowd", 20_000),
    ("few", LEFT),
    ("peak", 20_000),
    ("sessions", 1000),
    ("sessions", 20_000),
];

/// The scenes of `--scale`.
pub(crate) const LARGE: [(&str, usize); 6] = [
    ("crowd", TALKERS),
    ("crowd", MANY),
    ("few", LEFT),
    ("peak", MANY),
    ("sessions", 1000),
    ("sessions", 10 * MANY),
];

/// How many connections a large crowd has.
pub(crate) const MANY: usize = 1_000_000;

/// What a scene has done.
pub(crate) struct Steps {
    done: Vec<Step>,
    /// Turns of the step under way.
    turns: u64,
}

struct Step {
    name: String,
    unit: &'static str,
    operations: u64,
    turns: u64,
}

impl Steps {
    /// Counts each turn of a step that does `operations` things; `turn` says whether there is another one.
    fn step(
        &mut self,
        name: impl Into<String>,
        (operations, unit): (usize, &'static str),
        mut turn: impl FnMut() -> bool,
    ) {
        while self.turn(&mut turn) {}
        self.end(name, (operations, unit));
    }

    /// Counts one turn of a step; says what it says.
    fn turn(&mut self, turn: impl FnOnce() -> bool) -> bool {
        let (mut turn, mut goes_on) = (Some(turn), false);
        counted(&mut || goes_on = turn.take().is_some_and(|turn| turn()));
        self.turns += 1;
        goes_on
    }

    /// That was the step.
    fn end(&mut self, name: impl Into<String>, (operations, unit): (usize, &'static str)) {
        let (operations, turns) = (operations as u64, std::mem::take(&mut self.turns));
        self.done.push(Step { name: name.into(), unit, operations, turns });
    }

    /// Says what the process weighs now.
    fn weigh(&self, when: &str) {
        println!("weight {when} {}", cases::resident().unwrap_or_default());
    }
}

/// Says yes so often.
fn times(times: usize) -> impl FnMut() -> bool {
    let mut left = times;
    move || {
        left -= 1;
        left > 0
    }
}

/// Plays one scene here, and prints what its steps were.
pub(crate) fn play(name: &str, size: usize) -> Result<()> {
    let scene = SCENES.iter().find(|(known, _)| *known == name).ok_or("there is no such scene")?;
    let mut steps = Steps { done: Vec::new(), turns: 0 };
    scene.1(size, &mut steps);
    for Step { name, unit, operations, turns } in steps.done {
        println!("step {name} {operations} {turns} {unit}");
    }
    Ok(())
}

/// What was counted of a step.
pub(crate) struct Figure {
    pub(crate) each: f64,
    pub(crate) longest: u64,
    pub(crate) turns: usize,
    pub(crate) unit: &'static str,
}

/// Plays a scene under callgrind: its steps by name, in their order in `names`.
pub(crate) fn count(name: &str, size: usize) -> Result<(Vec<String>, BTreeMap<String, Figure>)> {
    let arguments = [SCENE, name, &size.to_string()];
    let (printed, calls) = callgrind::count_calls(&arguments, "micro::counted")?;
    let (mut calls, mut names, mut figures) = (calls.into_iter(), Vec::new(), BTreeMap::new());
    for line in printed.lines().filter_map(|line| line.strip_prefix("step ")) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or("a step has four words");
        let name = word()?.to_owned();
        let (operations, turns): (f64, usize) = (word()?.parse()?, word()?.parse()?);
        let unit = UNITS.iter().find(|unit| line.ends_with(*unit)).ok_or("an unknown unit")?;
        let of_step: Vec<u64> = calls.by_ref().take(turns).collect();
        let longest = of_step.iter().max().copied().filter(|_| of_step.len() == turns);
        let longest = longest.ok_or("turns are missing in the trace")?;
        let each = of_step.iter().sum::<u64>() as f64 / operations;
        figures.insert(name.clone(), Figure { each, longest, turns, unit });
        names.push(name);
    }
    match calls.next() {
        None => Ok((names, figures)),
        Some(_) => Err("the trace has more turns than there were".into()),
    }
}

/// What a scene weighs natively, by the names of the moments.
pub(crate) fn weights(name: &str, size: usize) -> Result<BTreeMap<String, u64>> {
    let arguments = [SCENE, name, &size.to_string()];
    let output = std::process::Command::new(std::env::current_exe()?).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let printed = String::from_utf8(output.stdout)?;
    let lines = printed.lines().filter_map(|line| line.strip_prefix("weight "));
    lines
        .map(|line| {
            let (when, bytes) = line.split_once(' ').ok_or("a weight has two words")?;
            Ok((when.to_owned(), bytes.parse()?))
        })
        .collect()
}

/// The figures of the small scenes for the baseline: of each step what it takes, and its longest turn if it
/// has several.
pub(crate) fn small(only: &str) -> Result<Vec<Count>> {
    let mut counts = Vec::new();
    for (name, size) in SMALL {
        let label = format!("{name}-{size}");
        if !label.contains(only) {
            continue;
        }
        let (names, figures) = count(name, size)?;
        // A crowd that leaves has come as any other.
        let comes = |step: &String| name == "peak" && ["open", "all-talk"].contains(&&**step);
        for step in names.into_iter().filter(|step| !comes(step)) {
            let Figure { each, longest, turns, unit } = figures[&step];
            counts.push(Count { name: format!("{label}/{step}"), each, unit });
            if turns > 1 && !UNIFORM.contains(&&*step) {
                let (name, each) = (format!("{label}/{step}/longest"), longest as f64);
                counts.push(Count { name, each, unit: "a turn" });
            }
        }
    }
    Ok(counts)
}

const OPENED: &str = "an opening";
const MESSAGE: &str = "a message";
const RECIPIENT: &str = "a recipient";
const TURN: &str = "a turn";
const ALARM: &str = "an alarm";
const PING: &str = "a ping";
const SCRAPE: &str = "a page";
const LOOK: &str = "a look";
const CONNECTION: &str = "a connection";
const SESSION: &str = "a session";
const UNITS: [&str; 10] =
    [OPENED, MESSAGE, RECIPIENT, TURN, ALARM, PING, SCRAPE, LOOK, CONNECTION, SESSION];

/// They come, and each says something: from then on its session is worth keeping.
fn open(size: usize, steps: &mut Steps) -> Crowd {
    let mut crowd = Crowd::new(size);
    steps.weigh("before");
    crowd.come(size);
    steps.step("open", (size, OPENED), || crowd.open_some());
    crowd.note_all_open(size);
    steps.weigh("open");
    crowd.prepare_messages();
    crowd.begin();
    steps.step("all-talk", (size, MESSAGE), || crowd.next_talk());
    steps.weigh("heard");
    crowd
}

/// What is done where connections are: each of it among all that there are.
fn live(crowd: &mut Crowd, size: usize, steps: &mut Steps) {
    crowd.prepare_messages();
    let talkers = size.min(TALKERS);
    // With warm buffers, and past the first digits of the counts.
    (0..20).for_each(|_| crowd.some_talk(talkers));
    let mut goes_on = times(20);
    steps.step("talk", (20 * talkers, MESSAGE), || {
        crowd.some_talk(talkers);
        goes_on()
    });
    crowd.ask_for_broadcast();
    let before = crowd.writes();
    steps.step("broadcast", (size, RECIPIENT), || crowd.turn());
    assert_eq!(crowd.writes() - before, size, "each has it");
    let mut goes_on = times(20);
    steps.step("empty", (20, TURN), || {
        assert!(!crowd.turn());
        goes_on()
    });
    let scraper = crowd.scraper();
    let mut goes_on = times(5);
    steps.step("scrape", (5, SCRAPE), || {
        crowd.again(scraper);
        goes_on()
    });
    crowd.dismiss(scraper);
    let watcher = crowd.watcher();
    let mut goes_on = times(3);
    steps.step("look", (3, LOOK), || {
        crowd.pass(Duration::from_millis(u64::from(!crowd.is_looking()) * 1000));
        crowd.turn() || goes_on()
    });
    crowd.dismiss(watcher);
}

/// All are told goodbye, answer, and are gone.
fn drain(crowd: &mut Crowd, size: usize, steps: &mut Steps) {
    crowd.begin_drain();
    let before = crowd.writes();
    steps.step("goodbye", (size, CONNECTION), || crowd.turn());
    assert_eq!(crowd.writes() - before, size, "each is told");
    crowd.prepare_echoes();
    steps.step("echo", (size, CONNECTION), || crowd.next_talk());
    crowd.prepare_leaving();
    steps.step("end", (size, CONNECTION), || crowd.next_leave());
    crowd.settle();
    let outcome = crowd.outcome().expect("the drain is over");
    assert_eq!((outcome.closed, outcome.cut), (size as u64, 0));
}

/// Connections that are all there to the end.
fn crowd(size: usize, steps: &mut Steps) {
    let mut crowd = open(size, steps);
    live(&mut crowd, size, steps);
    // The deadline for a request stood in the wheel, and is none any more.
    crowd.until(crowd.config().timeout_handshake);
    steps.step("alarm", (size, ALARM), || crowd.turn());
    crowd.until(crowd.config().ws_ping_interval.expect("there are pings"));
    let before = crowd.writes();
    steps.step("ping", (size, PING), || crowd.turn());
    assert_eq!(crowd.writes() - before, size, "each was pinged");
    drain(&mut crowd, size, steps);
}

/// Ten connections that never saw a crowd.
fn few(size: usize, steps: &mut Steps) {
    let mut crowd = open(size, steps);
    live(&mut crowd, size, steps);
    drain(&mut crowd, size, steps);
}

/// A crowd of which ten are left, and no other session.
fn peak(size: usize, steps: &mut Steps) {
    let mut crowd = open(size, steps);
    let stayed = crowd.set_aside(LEFT);
    crowd.prepare_leaving();
    let gone = size - LEFT;
    steps.step("leave", (gone, CONNECTION), || crowd.next_leave());
    crowd.only(stayed);
    assert_eq!(crowd.parked(), gone as u64);
    steps.weigh("left");
    crowd.until(crowd.config().timeout_handshake);
    steps.step("vacant-alarm", (size, ALARM), || crowd.turn());
    crowd.until(crowd.config().session_ttl);
    steps.step("expire", (gone, SESSION), || crowd.turn());
    assert_eq!(crowd.parked(), 0);
    steps.weigh("expired");
    live(&mut crowd, LEFT, steps);
    drain(&mut crowd, LEFT, steps);
}

/// Sessions that are resumed by the one or other, and whose time is over for all at once.
fn sessions(size: usize, steps: &mut Steps) {
    const TIMES: usize = 10_000;
    steps.weigh("before");
    let mut table = Parked::new(size, Instant::now());
    let mut at = 0;
    while at < size {
        // As many as one poll may report.
        table.choose((at..size).take(1024));
        at += 1024;
        steps.turn(|| table.park());
    }
    steps.end("park", (size, SESSION));
    steps.weigh("parked");
    for at in 0..TIMES / 100 {
        table.choose((at * 100..(at + 1) * 100).map(|number| number * 9973 % size));
        steps.turn(|| table.resume());
    }
    steps.end("resume", (TIMES, SESSION));
    steps.step("expire", (size, SESSION), || table.expire(4096));
    steps.weigh("expired");
    black_box(&table);
}
