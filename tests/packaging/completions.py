"""What `--completions` prints makes bash, zsh and fish complete; what `--man` prints is a manual page.

The options that a shell has to offer, and their words, are read from docs/options.md. Starts no server. Called by
tests/run, which has seen to it that the shells, mandoc and groff are there.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

from harness import ROOT, case, command, expect, require, run
from shell import Shell

OTHERS = {"--help", "--version", "--check-config", "--print-config", "--completions", "--man"}
SWITCH = {"true", "false"}

# In place of the program: shows what words the shell has made of the line.
STAND_IN = "revolve() { printf '<%s>' \"$@\"; echo; }"


def documented():
    """Every option and negation."""
    text = (ROOT / "docs/options.md").read_text()
    rows = re.findall(r"^\| `([^`]*)`", text, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"--[a-z-]+", row)}
    require(len(names) > 50, f"docs/options.md has only {len(names)}")
    return names | OTHERS


def words_documented():
    """The words that each option takes. A switch may be alone, and only two of its words are offered."""
    text = (ROOT / "docs/options.md").read_text()
    rows = re.findall(
        r"^\| `(--[a-z-]+)[^`]*` \| [^|]* \| ((?:\w+, )*\w+ or \w+) \|", text, re.MULTILINE
    )
    require(len(rows) > 10, f"docs/options.md has words for only {len(rows)}")
    words = {name: set(re.split(", | or ", cell)) for name, cell in rows}
    words = {name: SWITCH if "true" in said else said for name, said in words.items()}
    return words | {"--completions": {"bash", "zsh", "fish"}}


def script(shell):
    code, text, errors = command("--completions", shell)
    expect((code, errors), (0, ""), f"--completions {shell}")
    return text


def typed_into(shell, *lines):
    """Types each line, with its tabs, and wants the words behind it."""
    for line, words in lines:
        shell.type(line + "\n")
        shell.wait_for("".join(f"<{word}>" for word in words))


@case
async def bash_completes_names_words_and_paths():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "revolve")
        path.write_text(script("bash"))

        def offered(*words):
            line = (
                f'. "{path}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _revolve; '
                'printf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = subprocess.run(
                ["bash", "--norc", "-uc", line, "-", "revolve", *words],
                capture_output=True,
                text=True,
                cwd=folder,
                check=True,
            )
            expect(done.stderr, "", f"bash says of {words}")
            return set(done.stdout.split())

        expect(offered("--"), documented(), "bash offers")
        expect(offered("--port", "1", "--"), documented(), "bash offers behind an option")
        expect(offered("s"), {"store"}, "bash offers at the start")
        expect(offered("--app", "echo", "s"), set(), "bash offers later")
        for name, words in words_documented().items():
            expect(offered(name, ""), words, f"bash offers behind {name}")
            expect(offered(name, "="), words, f"bash offers behind {name}=")
            first = sorted(words)[0]
            expect(offered(name, "=", first[:3]), {first}, f"bash offers behind {name}={first[:3]}")
        require("--port" in offered("--proxy-protocol", "--p"), "a word that may be left out is")
        expect(offered("--port", ""), set(), "bash offers behind --port")
        expect(offered("--config", "rev"), {"revolve"}, "bash offers files")
        expect(offered("store", ""), {"check", "dump"}, "bash offers behind store")
        os.mkdir(pathlib.Path(folder, "sessions"))
        expect(offered("store", "check", ""), {"sessions"}, "bash offers folders")
        # What was typed, then the words that the shell made of it.
        with Shell("bash", "--norc", "--noprofile", "-i") as shell:
            shell.type(f". {path}; {STAND_IN}; cd {folder}; echo re''ady\n")
            shell.wait_for("ready")
            typed_into(
                shell,
                ("revolve --log-fo\tjs\t", ["--log-format", "json"]),
                ("revolve --log-format=te\t", ["--log-format=text"]),
                ("revolve --conf\trev\t--no-pa\t", ["--config", "revolve", "--no-page"]),
                ("revolve st\tch\tses\t", ["store", "check", "sessions/"]),
            )


@case(seconds=60)
async def zsh_completes_names_words_and_paths():
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "_revolve").write_text(script("zsh"))
        os.mkdir(pathlib.Path(folder, "sessions"))
        with Shell("zsh", "-f", "-i") as shell:
            start = f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -D -u; cd {folder}"
            shell.type(f"{start}; unsetopt list_beep; {STAND_IN}; echo re''ady\n")
            shell.wait_for("ready")
            typed_into(
                shell,
                ("revolve --log-fo\tjs\t", ["--log-format=json"]),
                ("revolve --log-format te\t", ["--log-format", "text"]),
                ("revolve --no-me\t--acc\t", ["--no-metrics", "--access-log"]),
                ("revolve --header A:1 --heade\tB:2", ["--header", "A:1", "--header=B:2"]),
                ("revolve --conf\t_re\t", ["--config=_revolve"]),
                ("revolve --proxy-prot\tt\t", ["--proxy-protocol=true"]),
                ("revolve --compl\tf\t", ["--completions=fish"]),
                ("revolve st\tdu\tses\t", ["store", "dump", "sessions"]),
            )


@case
async def fish_completes_names_words_and_paths():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "revolve.fish")
        path.write_text(script("fish"))
        os.mkdir(pathlib.Path(folder, "sessions"))

        def offered(line):
            # What it offers, and behind a tab what it says of it.
            asked = f"source {path}; complete -C '{line}'"
            done = subprocess.run(
                ["fish", "--no-config", "-c", asked],
                capture_output=True,
                text=True,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": folder},
                check=True,
            )
            expect(done.stderr, "", f"fish says of {line}")
            return {line.split("\t")[0] for line in done.stdout.splitlines()}

        # With "=" too, where a value may be left out.
        names = {name.removesuffix("=") for name in offered("revolve --")}
        expect(names, documented(), "fish offers")
        for name, words in words_documented().items():
            if words != SWITCH:
                expect(offered(f"revolve {name} "), words, f"fish offers behind {name}")
            whole = {f"{name}={word}" for word in words}
            expect(offered(f"revolve {name}="), whole, f"fish offers behind {name}=")
        expect(offered("revolve --port "), set(), "fish offers behind --port")
        require("revolve.fish" in offered("revolve --config "), "fish offers files")
        expect(offered("revolve "), {"store"}, "fish offers at the start")
        expect(offered("revolve store "), {"check", "dump"}, "fish offers behind store")
        expect(offered("revolve store check "), {"sessions/"}, "fish offers folders")


@case
async def the_manual_page_is_one_without_warnings():
    code, page, errors = command("--man")
    expect((code, errors), (0, ""), "--man")
    # A date would be the machine's, or grow old.
    dateless = re.compile(r'WARNING: missing date, using "": TH$')
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True
    )
    told = [line for line in lint.stdout.splitlines() if not dateless.search(line)]
    expect((told, lint.stderr), ([], ""), "mandoc")
    groff = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-c"], input=page, capture_output=True, text=True
    )
    expect((groff.returncode, groff.stderr), (0, ""), "groff")
    # As a terminal shows it, without overstriking and folds.
    shown = " ".join(re.sub(r".\x08", "", groff.stdout).split())
    for name in documented():
        require(re.search(rf"(?<![a-z-]){name}(?![a-z-])", shown), f"the page does not show {name}")
    for heading in ("NAME", "SYNOPSIS", "ENVIRONMENT", "SIGNALS", "EXIT STATUS"):
        require(f" {heading} " in shown, f"the page has no {heading}")


@case
async def a_shell_that_is_not_known_is_one_line():
    code, out, errors = command("--completions", "tcsh")
    expect((code, out), (2, ""), "exit code and output")
    expect(errors, 'revolve: --completions: "tcsh" is not bash, zsh or fish\n', "the line")


run()
