//! What the texts of options mean, and how their values are shown: hosts, numbers, times, words, lists.
//!
//! Pure functions, which return `None` for a text that is not valid: the caller reports it. Called by
//! the table of options.
//!
//! Next: `settings`: what the options set.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use revolve::config::{Address, AllowedOrigins, Origin, SessionRate, StoreSync, UnixPath};

/// Where to listen: an address, or a name that stands for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

/// A socket that was passed, by its number or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passing {
    Number(usize),
    Name(String),
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Passing::Number(number) => number.fmt(f),
            Passing::Name(name) => name.fmt(f),
        }
    }
}

/// Of what is passed.
pub(super) const PASSED_ALLOWED: &str = "a list of descriptors and their names such as 3,http";

pub(super) fn show_passed(passed: &[Passing]) -> String {
    match passed {
        [] => "none".to_owned(),
        passed => passed.iter().map(Passing::to_string).collect::<Vec<_>>().join(","),
    }
}

/// `3,http`.
pub(super) fn passed(text: &str) -> Option<Vec<Passing>> {
    // sd_listen_fds_with_names(3): a name is ASCII without control characters and colons. No comma here.
    let is_name = |text: &str| {
        (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    let one = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => number::<u16>(text).map(|number| Passing::Number(number.into())),
        false => is_name(text).then(|| Passing::Name(text.to_owned())),
    };
    text.split(',').map(one).collect()
}

/// `127.0.0.1,localhost`, blanks allowed around the commas.
pub(super) fn hosts(text: &str) -> Option<Vec<Host>> {
    text.split(',').map(|one| host(one.trim())).collect()
}

fn host(text: &str) -> Option<Host> {
    let name = || is_host_name(text).then(|| Host::Name(text.to_owned()));
    text.parse().ok().map(Host::Address).or_else(name)
}

/// RFC 1123 2.1: labels of letters, digits and hyphens. The last one is no number, or it was meant as an
/// address.
fn is_host_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253
        && labels.clone().all(is_label)
        && labels.next_back().is_some_and(|last| !is_number(last))
}

/// `127.0.0.1:9000`, or `unix:` and a path.
pub(super) fn admin(text: &str) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some(path) => UnixPath::parse(path).filter(UnixPath::is_valid).map(Address::Unix),
        None => text.parse().ok().map(Address::Tcp),
    }
}

/// `https://a,https://b`, blanks allowed around the commas.
pub(super) fn origins(text: &str) -> Option<AllowedOrigins> {
    let origins: Option<_> = text.split(',').map(|one| Origin::parse(one.trim())).collect();
    origins.map(AllowedOrigins::Only)
}

/// The name of this server; `None` for `random`, which is another one at each start.
pub(super) fn node(text: &str) -> Option<String> {
    (!text.eq_ignore_ascii_case("random")).then(|| text.to_owned())
}

/// `a,b`, blanks allowed around the commas.
pub(super) fn names(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|one| name(one.trim())).collect()
}

/// A name; `None` inside for `auto`.
pub(super) fn auto_or_name(text: &str) -> Option<Option<String>> {
    if text.eq_ignore_ascii_case("auto") { Some(None) } else { name(text).map(Some) }
}

fn name(text: &str) -> Option<String> {
    let is_name = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
    is_name.then(|| text.to_owned())
}

/// A path of a file; no file has an empty one.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// Digits only: no sign, no blanks, no exponent.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Seconds, with or without a fraction.
pub(super) fn time(text: &str) -> Option<Duration> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = plain.then(|| text.parse().ok())??;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `100`, or `100/60`: with the time in seconds.
pub(super) fn session_rate(text: &str) -> Option<SessionRate> {
    let (sessions, window) = match text.split_once('/') {
        Some((sessions, window)) => (sessions, time(window)?),
        None => (text, SessionRate::WINDOW),
    };
    Some(SessionRate { sessions: number(sessions)?, window })
}

/// `always`, or milliseconds.
pub(super) fn store_sync(text: &str) -> Option<StoreSync> {
    match text.eq_ignore_ascii_case("always") {
        true => Some(StoreSync::Always),
        false => number(text).map(|ms| StoreSync::Every(Duration::from_millis(ms))),
    }
}

/// `auto` is `None`: the time that suits what else is set.
pub(super) fn time_or_auto(text: &str) -> Option<Option<Duration>> {
    if text.eq_ignore_ascii_case("auto") { Some(None) } else { time(text).map(Some) }
}

pub(super) fn time_or_off(text: &str) -> Option<Option<Duration>> {
    let time = time(text)?;
    // A time so small that it rounds to zero was not meant as "off"; zero is out of bounds later.
    let off = time.is_zero() && !text.contains(|c: char| ('1'..='9').contains(&c));
    Some((!off).then_some(time))
}

/// A duration as the options take it.
pub(crate) fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

pub(super) fn show_time_or_off(time: Option<Duration>) -> String {
    time.map_or("0".to_owned(), seconds)
}

/// The words of a list of words and meanings.
pub(super) const fn words<T, const N: usize>(pairs: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = pairs[index].0;
        index += 1;
    }
    words
}

/// In any case: `REVOLVE_LOG_LEVEL=INFO` is what other programs take too.
pub(super) fn meant<T: Copy>(pairs: &[(&str, T)], text: &str) -> Option<T> {
    let mut found = pairs.iter().filter(|(word, _)| word.eq_ignore_ascii_case(text));
    found.next().map(|(_, meaning)| *meaning)
}

/// The last word wins, so that `error` is shown as itself.
pub(super) fn word_for<T: PartialEq>(pairs: &[(&str, T)], meaning: T) -> String {
    pairs.iter().rfind(|(_, m)| *m == meaning).map_or(String::new(), |(word, _)| (*word).to_owned())
}

/// Paths, separated by commas.
pub(super) fn paths(list: &str) -> Option<Vec<PathBuf>> {
    list.split(',').map(path).collect()
}

pub(super) fn show_paths(paths: &[PathBuf]) -> String {
    match paths {
        [] => "none".to_owned(),
        paths => paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(","),
    }
}
