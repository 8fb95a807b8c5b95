//! The results: kept with their circumstances, printed, and written as JSON and Markdown.
//!
//! A figure is the median of its runs, the spread is their least and greatest, a ratio is the median
//! of the ratios within each round. It measures nothing and draws nothing; `main.rs` fills it,
//! `picture.rs` reads it. No path and no host name goes into what is written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::Result;
use crate::scenarios::{Outcome, Scenario};
use crate::servers::{Kind, NAMES, Server};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// One figure of one server.
#[derive(Debug, Default)]
struct Series {
    scenario: String,
    title: String,
    unit: String,
    more_is_better: bool,
    server: String,
    /// By round; none where the run failed or the figure does not exist.
    runs: Vec<Option<f64>>,
    error: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    date: String,
    machine: String,
    kernel: String,
    rustc: String,
    commit: Option<String>,
    command: String,
    quick: bool,
    rounds: usize,
    pub(crate) servers: Vec<String>,
    absent: Vec<(String, String)>,
    series: Vec<Series>,
    /// By run: the share of its time that a server waited for its core.
    waited: Vec<f64>,
}

impl Series {
    fn values(&self) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().copied().flatten().collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self) -> Option<f64> {
        median(&self.values())
    }
}

/// The middle of sorted values, or the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

impl Report {
    pub(crate) fn new(
        servers: &[Server],
        absent: &[(&str, String)],
        rounds: usize,
        quick: bool,
    ) -> Self {
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut command = "cargo bench --bench load".to_owned();
        let arguments: Vec<String> = arguments_worth_telling(std::env::args().skip(1));
        if !arguments.is_empty() {
            command = format!("{command} -- {}", arguments.join(" "));
        }
        Self {
            date,
            machine: machine(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: said("rustc", &["--version"]).unwrap_or_default(),
            commit: commit(),
            command,
            quick,
            rounds,
            servers: servers.iter().map(|server| server.name.to_owned()).collect(),
            absent: absent.iter().map(|(name, why)| ((*name).to_owned(), why.clone())).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn add(
        &mut self,
        scenario: &Scenario,
        server: &Server,
        round: usize,
        outcome: Result<Outcome>,
    ) {
        if let Ok(outcome) = &outcome {
            self.waited.push(outcome.waited);
        }
        for (n, metric) in scenario.metrics.iter().enumerate() {
            let known = self.series.iter().position(|series| {
                series.scenario == scenario.name
                    && series.title == metric.title
                    && series.unit == metric.unit
                    && series.server == server.name
            });
            let at = known.unwrap_or_else(|| {
                self.series.push(Series {
                    scenario: scenario.name.to_owned(),
                    title: metric.title.to_owned(),
                    unit: metric.unit.to_owned(),
                    more_is_better: metric.more_is_better,
                    server: server.name.to_owned(),
                    ..Series::default()
                });
                self.series.len() - 1
            });
            let series = &mut self.series[at];
            series.runs.resize(round, None);
            series.runs.push(match &outcome {
                Ok(outcome) => Some(outcome.values[n]).filter(|value| value.is_finite()),
                Err(error) => {
                    // The first line: what follows it are the server's words.
                    series.error = error.to_string().lines().next().map(str::to_owned);
                    None
                }
            });
        }
    }

    /// The median of one figure of one server.
    pub(crate) fn figure(&self, title: &str, unit: &str, server: &str) -> Option<f64> {
        self.find(title, unit, server)?.median()
    }

    pub(crate) fn ratio_of(&self, title: &str, unit: &str, server: &str) -> Option<f64> {
        self.ratio(self.find(title, unit, server)?)
    }

    fn find(&self, title: &str, unit: &str, server: &str) -> Option<&Series> {
        self.series.iter().find(|s| s.title == title && s.unit == unit && s.server == server)
    }

    /// The rows of the table: each figure once, in the order of the scenarios.
    fn rows(&self) -> Vec<&Series> {
        let mut rows: Vec<&Series> = Vec::new();
        for series in &self.series {
            if !rows.iter().any(|row| row.title == series.title && row.unit == series.unit) {
                rows.push(series);
            }
        }
        rows
    }

    /// The median of the ratios to the floor within each round, of what is a cost in CPU time: a
    /// quotient of bytes or of latencies would say little.
    fn ratio(&self, series: &Series) -> Option<f64> {
        if !series.unit.contains("CPU") {
            return None;
        }
        let floor = NAMES.iter().find(|(_, kind)| *kind == Kind::Floor)?.0;
        let floor = self.find(&series.title, &series.unit, floor)?;
        let pairs = series.runs.iter().zip(&floor.runs);
        let mut ratios: Vec<f64> =
            pairs.filter_map(|(own, floor)| Some((*own)? / (*floor)?)).collect();
        ratios.sort_by(f64::total_cmp);
        median(&ratios).filter(|ratio| ratio.is_finite())
    }

    /// The whole of it for a terminal: each figure with its spread.
    pub(crate) fn print(&self) {
        for row in self.rows() {
            println!("\n{}: {}", row.title, row.unit);
            for server in &self.servers {
                let Some(series) = self.find(&row.title, &row.unit, server) else { continue };
                let values = series.values();
                let (Some(middle), Some(least), Some(most)) =
                    (median(&values), values.first(), values.last())
                else {
                    if let Some(error) = &series.error {
                        println!("  {server:<18} {error}");
                    }
                    continue;
                };
                let ratio = self.ratio(series).map(|ratio| format!("{ratio:.2} × floor"));
                println!(
                    "  {server:<18} {:>9}   {:>9} to {:<9} {}",
                    number(middle),
                    number(*least),
                    number(*most),
                    ratio.unwrap_or_default(),
                );
            }
        }
        println!("\n{}", self.circumstances().join("\n"));
    }

    pub(crate) fn circumstances(&self) -> Vec<String> {
        let mut waited = self.waited.clone();
        waited.sort_by(f64::total_cmp);
        let worst = waited.get(waited.len().saturating_sub(1) * 95 / 100).copied().unwrap_or(0.0);
        let commit = self.commit.as_ref().map(|commit| format!(", commit {commit}"));
        let mut lines = vec![
            format!("{} · {} · Linux {}", self.date, self.machine, self.kernel),
            format!("`{}`{}, {}", self.command, commit.unwrap_or_default(), self.rustc),
            format!(
                "Rounds: {}, interleaved over the servers. Waiting for a core while ready to run: \
                 {:.1} % of a server's time in the middle run, {:.1} % in the 95th of 100.",
                self.rounds,
                median(&waited).unwrap_or(0.0) * 100.0,
                worst * 100.0
            ),
        ];
        for (name, why) in &self.absent {
            lines.push(format!("{name} is absent: {why}"));
        }
        lines
    }

    /// The Markdown table. The path of its picture is relative to docs/performance.md, which embeds it.
    fn markdown(&self) -> String {
        let mut text = String::new();
        text.push_str(
            "![CPU time a message and bytes an idle connection, by server]\
             (../benches/results/latest.svg)\n\n",
        );
        let many = |row: &&Series| self.servers.iter().filter(|s| self.has(row, s)).count() > 1;
        let (shared, single): (Vec<&Series>, Vec<&Series>) =
            self.rows().into_iter().partition(many);
        text.push_str(&format!("| | | {} |\n", self.servers.join(" | ")));
        text.push_str(&format!("|---|---|{}\n", "--:|".repeat(self.servers.len())));
        let mut spreads = Vec::new();
        for row in shared {
            text.push_str(&format!("| {} | {} |", row.title, row.unit));
            for server in &self.servers {
                text.push_str(&format!(" {} |", self.cell(row, server)));
                let values = self.find(&row.title, &row.unit, server).map(Series::values);
                if let [least, .., most] = values.as_deref().unwrap_or_default() {
                    spreads.push((most - least) / ((most + least) / 2.0));
                }
            }
            text.push('\n');
        }
        if !single.is_empty() {
            text.push_str("\n| of one server | | | median | least | greatest |\n");
            text.push_str("|---|---|---|--:|--:|--:|\n");
        }
        for row in single {
            for server in self.servers.iter().filter(|server| self.has(row, server)) {
                let values = self.find(&row.title, &row.unit, server).map(Series::values);
                let values = values.unwrap_or_default();
                if let (Some(least), Some(most)) = (values.first(), values.last()) {
                    let (least, most) = (number(*least), number(*most));
                    let Series { title, unit, .. } = row;
                    let middle = self.cell(row, server);
                    text.push_str(&format!(
                        "| {server} | {title} | {unit} | {middle} | {least} | {most} |\n"
                    ));
                }
            }
        }
        spreads.sort_by(f64::total_cmp);
        text.push_str(
            "\nMedians; in brackets the ratio to the floor, an epoll loop that does no WebSocket \
             work: the median of the ratios within each round.",
        );
        if let Some(spread) = median(&spreads) {
            let percent = spread * 100.0;
            text.push_str(&format!(
                " Least and greatest run are {percent:.0} % of the figure apart in the middle case."
            ));
        }
        text.push_str("\n\n");
        for line in self.circumstances() {
            text.push_str(&line);
            text.push_str("  \n");
        }
        if self.quick {
            text.push_str("A quick look, not a result.\n");
        }
        text
    }

    fn has(&self, row: &Series, server: &str) -> bool {
        self.figure(&row.title, &row.unit, server).is_some()
    }

    /// One cell of the table: the median, with its ratio to the floor where that is a comparison.
    fn cell(&self, row: &Series, server: &str) -> String {
        let Some(series) = self.find(&row.title, &row.unit, server) else { return "–".into() };
        match (series.median(), self.ratio(series)) {
            (Some(middle), Some(ratio)) => format!("{} ({}×)", number(middle), number(ratio)),
            (Some(middle), None) => number(middle),
            (None, _) if series.error.is_some() => "failed".into(),
            (None, _) => "–".into(),
        }
    }

    pub(crate) fn write_table(&self, directory: &Path) -> Result<()> {
        Ok(fs::write(directory.join("latest.md"), self.markdown())?)
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let series = self.series.iter().map(|series| {
            let values = series.values();
            json!({
                "scenario": series.scenario, "title": series.title, "unit": series.unit,
                "more_is_better": series.more_is_better, "server": series.server,
                "median": series.median(), "least": values.first(), "greatest": values.last(),
                "ratio_to_floor": self.ratio(series), "runs": series.runs, "error": series.error,
            })
        });
        let head = json!({
            "date": self.date, "machine": self.machine, "kernel": self.kernel,
            "rustc": self.rustc, "commit": self.commit, "command": self.command,
            "quick": self.quick, "rounds": self.rounds, "servers": self.servers,
            "absent": self.absent, "waited": self.waited,
        });
        // A line for each member and each series: a difference of two results can be read.
        let members = head.as_object().into_iter().flatten();
        let mut lines: Vec<String> =
            members.map(|(name, value)| format!("  {}: {value}", json!(name))).collect();
        let series: Vec<String> = series.map(|series| format!("    {series}")).collect();
        lines.push(format!("  \"series\": [\n{}\n  ]", series.join(",\n")));
        let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
        Ok(fs::write(directory.join("latest.json"), text)?)
    }

    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let value: Value =
            serde_json::from_str(&fs::read_to_string(directory.join("latest.json"))?)?;
        let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
        let absent = list("absent");
        let series = list("series").into_iter().map(|series| Series {
            scenario: text(&series["scenario"]),
            title: text(&series["title"]),
            unit: text(&series["unit"]),
            more_is_better: series["more_is_better"].as_bool().unwrap_or(false),
            server: text(&series["server"]),
            runs: series["runs"].as_array().into_iter().flatten().map(Value::as_f64).collect(),
            error: series["error"].as_str().map(str::to_owned),
        });
        Ok(Self {
            date: text(&value["date"]),
            machine: text(&value["machine"]),
            kernel: text(&value["kernel"]),
            rustc: text(&value["rustc"]),
            commit: value["commit"].as_str().map(str::to_owned),
            command: text(&value["command"]),
            quick: value["quick"].as_bool().unwrap_or(false),
            rounds: value["rounds"].as_u64().unwrap_or(0) as usize,
            servers: list("servers").iter().map(text).collect(),
            absent: absent.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            series: series.collect(),
            waited: list("waited").iter().filter_map(Value::as_f64).collect(),
        })
    }

    /// Date, machine and command in one line, for the picture.
    pub(crate) fn caption(&self) -> String {
        let day = self.date.split('T').next().unwrap_or_default();
        let look = if self.quick { " · a quick look" } else { "" };
        format!("{day} · {} · Linux {} · {}{look}", self.machine, self.kernel, self.command)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Three significant digits; a person compares them, a program reads the JSON.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let whole = format!("{:.0}", size);
            let head = whole.len() % 3;
            let mut text = String::from(if value < 0.0 { "-" } else { "" });
            for (at, digit) in whole.chars().enumerate() {
                if at > 0 && at % 3 == head {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Puts the table between the markers of docs/performance.md.
pub(crate) fn write_docs(table: &Path, document: &Path) -> Result<()> {
    let table = fs::read_to_string(table).map_err(|_| "there are no complete results yet")?;
    let text = fs::read_to_string(document)?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        return Err(format!("{} has no {BEGIN} and {END}", document.display()).into());
    };
    let (before, after) = (&text[..begin + BEGIN.len()], &text[end..]);
    Ok(fs::write(document, format!("{before}\n{}\n{after}", table.trim_end()))?)
}

/// The command as a user would type it: without cargo's own word and without paths.
fn arguments_worth_telling(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" | "--write-docs" => {}
            "--revolve" | "--output" => drop(arguments.next()),
            _ => told.push(argument),
        }
    }
    told
}

fn machine() -> String {
    let information = read("/proc/cpuinfo");
    let models = information.lines().filter_map(|line| line.strip_prefix("model name"));
    let model = models.clone().next().map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    format!("{}, {} cores", model.unwrap_or("an unknown processor"), models.count().max(1))
}

/// The commit, with a mark when the sources differ from it.
fn commit() -> Option<String> {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
    let sources = ["status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock"];
    let changed = said("git", &sources).is_some_and(|text| !text.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
