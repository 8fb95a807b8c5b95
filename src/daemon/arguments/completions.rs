//! Completions of the command line for bash, zsh and fish: `--completions`.
//!
//! Scripts alone, drawn from the table of options: a shell that has read one needs neither this program nor another
//! file to complete. Prints nothing. Called by `daemon/arguments/mod.rs`.
//!
//! Invariant: each shell is offered all options, their negations, their words, and nothing else.
//!
//! Next: `manual`: the manual page.

use std::fmt::Write as _;

use super::options::OPTIONS;
use super::row::{Row, Takes};
use super::usage::{COMMANDS, OTHERS, Other, SHELLS, Shell};

const HEAD: &str = "made by revolve --completions; the next release may have other options";

/// What may follow an option.
enum Follows {
    Nothing,
    /// One of these.
    Words(&'static [&'static str]),
    /// One of these, or nothing.
    Perhaps(&'static [&'static str]),
    /// A path.
    Path(&'static str),
    /// Something that nobody can guess.
    Text(&'static str),
}

/// A name of an option, as a shell is told it.
struct Name {
    /// With the dashes.
    name: String,
    /// The other names of the same, which make no sense beside it.
    rivals: Vec<String>,
    short: Option<&'static str>,
    follows: Follows,
    is_repeated: bool,
    about: String,
}

/// All of them, in the order of the help.
fn names() -> Vec<Name> {
    OPTIONS.iter().flat_map(names_of).chain(OTHERS.iter().map(other)).collect()
}

fn names_of(row: &Row) -> Vec<Name> {
    // A path of URLs is none of files.
    let is_path = |of: &str| (of == "FILE" || of.starts_with("PATH")) && row.name != "ws-path";
    let follows = match row.takes {
        Takes::Nothing => Follows::Nothing,
        Takes::Truth => Follows::Perhaps(&["true", "false"]),
        Takes::Word { of } => Follows::Words(of),
        Takes::Value(of, _) | Takes::Values(of, _) if is_path(of) => Follows::Path(of),
        Takes::Value(of, _) | Takes::Values(of, _) => Follows::Text(of),
    };
    let (plain, negation) = (format!("--{}", row.name), row.negation());
    let named = |name: &String, rival: Option<&String>, follows, about| Name {
        name: name.clone(),
        rivals: rival.into_iter().cloned().collect(),
        short: None,
        follows,
        is_repeated: matches!(row.takes, Takes::Values(..)),
        about,
    };
    let mut names = vec![named(&plain, negation.as_ref(), follows, row.about.to_owned())];
    if let Some(negation) = &negation {
        let about = format!("Not: {}", row.about);
        names.push(named(negation, Some(&plain), Follows::Nothing, about));
    }
    names
}

fn other(other: &Other) -> Name {
    Name {
        name: other.name.to_owned(),
        rivals: Vec::new(),
        short: other.short,
        follows: match other.takes {
            [] => Follows::Nothing,
            words => Follows::Words(words),
        },
        is_repeated: false,
        about: other.about.to_owned(),
    }
}

/// The script for this shell.
pub(super) fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The names of the shells, as the option takes them.
pub(super) fn shell(word: &str) -> Option<Shell> {
    SHELLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, shell)| *shell)
}

/// For each option that has words: what to offer behind it.
fn bash_words(names: &[Name]) -> String {
    let mut out = String::new();
    for Name { name, follows, .. } in names {
        let (of, unless) = match follows {
            Follows::Words(of) => (of, ""),
            // Another option may come in its place.
            Follows::Perhaps(of) => (of, "[[ $word == -* ]] || "),
            _ => continue,
        };
        let of = of.join(" ");
        let _ = writeln!(out, "    {name}) {unless}{{ _revolve_offer -W '{of}'; return; }} ;;");
    }
    out
}

fn bash() -> String {
    let names = names();
    let list = |follow: fn(&Follows) -> bool| {
        let with = names.iter().filter(|name| follow(&name.follows)).map(|name| name.name.as_str());
        with.collect::<Vec<_>>().join(" | ")
    };
    let words = bash_words(&names);
    let paths = list(|follows| matches!(follows, Follows::Path(_)));
    let texts = list(|follows| matches!(follows, Follows::Text(_)));
    let all = names.iter().flat_map(|name| [name.short, Some(name.name.as_str())]).flatten();
    let all = all.collect::<Vec<_>>().join(" ");
    let commands = COMMANDS.map(|(command, _)| command).join(" ");
    // `--name=value` is three words to bash: the name, `=`, and the value. `compopt` is refused outside of a completion.
    format!(
        r#"# bash completion for revolve, {HEAD}
_revolve_offer() {{ mapfile -t COMPREPLY < <(compgen "$@" -- "$word"); }}
_revolve() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local names='{all}'
    COMPREPLY=()
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = && $COMP_CWORD -gt 2 ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    if [[ $COMP_CWORD -gt 1 && ${{COMP_WORDS[1]}} == store ]]; then
        case $COMP_CWORD in
        2) _revolve_offer -W '{commands}' ;;
        3) compopt -o filenames 2>/dev/null; _revolve_offer -d ;;
        esac
        return
    fi
    case $before in
    {paths}) compopt -o filenames 2>/dev/null; _revolve_offer -f; return ;;
    {texts}) return ;;
{words}    esac
    [[ $COMP_CWORD -gt 1 ]] || names="store $names"
    _revolve_offer -W "$names"
}}
complete -F _revolve revolve
"#
    )
}

fn zsh() -> String {
    let mut out = format!(
        "#compdef revolve\n# zsh completion for revolve, {HEAD}\n\n\
         _revolve() {{\n  \
         if (( CURRENT > 2 )) && [[ $words[2] == store ]]; then\n    \
         case $CURRENT in\n    3)\n      local -a commands=("
    );
    for (command, about) in COMMANDS {
        let _ = write!(out, "\n        {}", in_quotes(&format!("{command}:{about}")));
    }
    out.push_str(
        "\n      )\n      _describe command commands ;;\n    4) _directories ;;\n    esac\n    \
         return\n  fi\n  _arguments -S \\\n",
    );
    for name in names() {
        let Name { name, rivals, short, follows, is_repeated, about } = name;
        let not_with = match is_repeated {
            true => "*".to_owned(),
            false => {
                let own = short.into_iter().chain([name.as_str()]);
                let all = own.chain(rivals.iter().map(String::as_str));
                format!("({})", all.collect::<Vec<_>>().join(" "))
            }
        };
        let about = about.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
        let end = match follows {
            Follows::Nothing => format!("[{about}]"),
            Follows::Words(of) => format!("=[{about}]:word:({})", of.join(" ")),
            Follows::Perhaps(of) => format!("=[{about}]::word:({})", of.join(" ")),
            Follows::Path(of) => format!("=[{about}]:{}:_files", of.replace(':', "\\:")),
            Follows::Text(of) => format!("=[{about}]:{}: ", of.replace(':', "\\:")),
        };
        for spelling in short.into_iter().chain([name.as_str()]) {
            let _ = writeln!(out, "    {} \\", in_quotes(&format!("{not_with}{spelling}{end}")));
        }
    }
    out.push_str("    '1: :(store)'\n}\n\n_revolve \"$@\"\n");
    out
}

fn fish() -> String {
    let mut out = format!("# fish completion for revolve, {HEAD}\ncomplete -c revolve -f\n");
    let stands_first = "__fish_use_subcommand";
    let is_store = "__fish_seen_subcommand_from store";
    let has_command =
        format!("__fish_seen_subcommand_from {}", COMMANDS.map(|(command, _)| command).join(" "));
    let _ = writeln!(out, "complete -c revolve -n {stands_first} -a store -d 'Look at a store'");
    for (command, about) in COMMANDS {
        let when = in_quotes(&format!("{is_store}; and not {has_command}"));
        let _ = writeln!(out, "complete -c revolve -n {when} -a {command} -d {}", for_fish(about));
    }
    let when = in_quotes(&format!("{is_store}; and {has_command}"));
    let _ = writeln!(out, "complete -c revolve -n {when} -a '(__fish_complete_directories)'");
    for Name { name, short, follows, about, .. } in names() {
        let short = short.map_or(String::new(), |s| format!(" -s {}", s.trim_start_matches('-')));
        let end = match follows {
            Follows::Nothing => String::new(),
            Follows::Words(of) => format!(" -x -a '{}'", of.join(" ")),
            Follows::Perhaps(of) => format!(" -a '{}'", of.join(" ")),
            Follows::Path(_) => " -r -F".to_owned(),
            Follows::Text(_) => " -x".to_owned(),
        };
        let name = name.trim_start_matches('-');
        let (when, about) = (in_quotes(&format!("not {is_store}")), for_fish(&about));
        let _ = writeln!(out, "complete -c revolve -n {when}{short} -l {name}{end} -d {about}");
    }
    out
}

/// As one word of a POSIX shell or zsh.
fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// As one word of fish, where a quote is escaped within quotes.
fn for_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_offered_to_every_shell() {
        let (bash, zsh, fish) = (bash(), zsh(), fish());
        let (mut count, negations) = (0, OPTIONS.iter().filter_map(Row::negation).count());
        for Name { name, about, .. } in names() {
            count += 1;
            assert!(bash.contains(&format!("{name} ")) || bash.contains(&format!("{name}'\n")));
            assert!(
                zsh.contains(&format!("{name}[")) || zsh.contains(&format!("{name}=[")),
                "{name}"
            );
            assert!(fish.contains(&format!(" -l {}", name.trim_start_matches('-'))), "{name}");
            assert!(!about.contains(['\n', '\0']), "{about:?}");
        }
        assert_eq!(count, OPTIONS.len() + negations + OTHERS.len());
    }

    #[test]
    fn texts_stay_one_word() {
        assert_eq!(in_quotes("it's [a] $b"), r"'it'\''s [a] $b'");
        assert_eq!(for_fish(r"it's a\b"), r"'it\'s a\\b'");
    }

    #[test]
    fn shells_are_known_by_name() {
        assert_eq!(shell("ZSH"), Some(Shell::Zsh));
        assert_eq!(shell("tcsh"), None);
    }
}
