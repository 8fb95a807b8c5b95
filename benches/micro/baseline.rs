//! The committed counts, and what a run is against them.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use crate::Result;

const PATH: &str = "benches/micro/baseline.txt";

/// More than this share worse is worse. The counts repeat exactly where nothing was changed, so the
/// room is for honest work beside the path, not for noise.
const ROOM: f64 = 0.03;

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) each: f64,
    pub(crate) unit: &'static str,
}

/// What `baseline.txt` holds: the tools that made it, then a name and a count a line.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    toolchain: String,
    counts: Vec<(String, f64)>,
}

impl Baseline {
    /// An empty one if there is none yet.
    pub(crate) fn load() -> Result<Self> {
        let text = match fs::read_to_string(PATH) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let mut baseline = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(toolchain) = comment.trim().strip_prefix("by ") {
                    baseline.toolchain = toolchain.to_owned();
                }
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(name), Some(each)) = (words.next(), words.next()) else {
                return Err(format!("{PATH}: {line:?} is no name and count").into());
            };
            baseline.counts.push((name.to_owned(), each.parse()?));
        }
        Ok(baseline)
    }

    fn of(&self, name: &str) -> Option<f64> {
        self.counts.iter().find(|(known, _)| known == name).map(|(_, each)| *each)
    }

    /// Prints the run beside the baseline; returns how many cases have got worse. With another
    /// toolchain nothing has: its counts are shown, and the last word says that they are not judged.
    pub(crate) fn compare(&self, counts: &[Count], toolchain: &str, is_complete: bool) -> usize {
        let is_comparable = self.toolchain == toolchain;
        let mut worse = 0;
        println!("{:<24} {:>12} {:>12} {:>8}", "", "baseline", "now", "");
        for Count { name, each, unit } in counts {
            let Some(before) = self.of(name) else {
                println!("{name:<24} {:>12} {each:>12.1} {:>8} {unit}", "-", "new");
                worse += usize::from(is_comparable);
                continue;
            };
            let change = each / before - 1.0;
            let verdict = if change > ROOM { "  WORSE" } else { "" };
            worse += usize::from(change > ROOM && is_comparable);
            let change = change * 100.0;
            println!("{name:<24} {before:>12.1} {each:>12.1} {change:>+7.1}% {unit}{verdict}");
        }
        let gone = |name: &str| is_complete && counts.iter().all(|count| count.name != name);
        for (name, _) in self.counts.iter().filter(|(name, _)| gone(name)) {
            println!("{name:<24} is in the baseline and no case any more");
            worse += usize::from(is_comparable);
        }
        if !is_comparable {
            println!(
                "NOT JUDGED: the baseline was made by {}\n{:12}this is {toolchain}",
                self.toolchain, ""
            );
        } else if worse > 0 {
            println!(
                "{worse} worse than {PATH}. Take the work away again; or, if it is worth its price, \
                 make it the new baseline and say why in the commit: \
                 cargo bench --bench micro -- --renew"
            );
        }
        worse
    }

    /// This baseline with the counts of a run in it.
    pub(crate) fn renewed(&self, counts: Vec<Count>, toolchain: String, is_complete: bool) -> Self {
        let fresh = counts.into_iter().map(|count| (count.name, count.each));
        if is_complete {
            return Self { toolchain, counts: fresh.collect() };
        }
        let mut all = self.counts.clone();
        for (name, each) in fresh {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = each,
                None => all.push((name, each)),
            }
        }
        Self { toolchain, counts: all }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let mut text = format!(
            "# What `cargo bench --bench micro` compares with; `-- --renew` writes it.\n# by {}\n",
            self.toolchain
        );
        for (name, each) in &self.counts {
            writeln!(text, "{name:<24} {each:.2}")?;
        }
        fs::write(PATH, text)?;
        println!("{PATH} is renewed");
        Ok(())
    }
}
