"""The crate as `cargo package` packs it: it builds, and nothing of the repository's own is in it. And what it is built
of: licences, sources, versions, and crates that it is not to have.

Without the network: for what the RustSec database knows of these crates, docs/operations.md names the command. Licences are those
of the crates for this machine's kind; all else is of all kinds. Called by tests/run.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

from harness import ROOT, case, expect, note, require, run

TARGET = pathlib.Path(os.environ["PACKAGED_TARGET"])

# Those under which code may be linked into a program that is given away without its sources.
LICENCES = {
    "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "Unlicense", "0BSD",
    "CC0-1.0", "Apache-2.0 WITH LLVM-exception",
}
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"

# Runtimes, other implementations of what is here, and what needs a C library of the system.
BANNED = re.compile(
    r"tokio|tokio-.*|async-std|smol|actix.*|hyper|openssl|openssl-sys|native-tls|aws-lc-.*|libz-sys|bindgen|cmake"
)

# In two versions with all features, and why: ring still takes the older one.
TWICE = {"getrandom"}


def cargo(*arguments, folder=ROOT, **options):
    done = subprocess.run(
        ["cargo", *arguments], cwd=folder, stdin=subprocess.DEVNULL, text=True, **options
    )
    expect(done.returncode, 0, f"cargo {' '.join(arguments)}: {done.stderr or ''}")
    return done.stdout


def packed():
    """Packs the crate, unpacks it, and returns the folder."""
    # So that all of it can be done offline, whatever was built before.
    cargo("fetch", "--quiet", "--locked")
    # A checkout that is being worked on can be packed too.
    offline = ("--locked", "--offline", "--no-verify", "--allow-dirty", "--target-dir", str(TARGET / "crate"))
    cargo("package", "--quiet", *offline)
    (archive,) = (TARGET / "crate/package").glob("revolve-*.crate")
    folder = TARGET / "crate/unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as files:
        # Python from before the filters trusts the archive, which is our own.
        files.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    archive.unlink()
    (unpacked,) = folder.iterdir()
    return unpacked


@case(seconds=600)
async def the_packed_crate_builds():
    folder = packed()
    there = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    wanted = {"Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md", "SECURITY.md", "src/main.rs"}
    expect(wanted - there, set(), "files that are missing")
    own = {file for file in there if re.match(r"\.ci/|fuzz/|benches/|target/|tests/(?!tls/)", file)}
    expect(own, set(), "files that are the repository's own")
    size = sum((folder / file).stat().st_size for file in there)
    note(f"{len(there)} files, {size / 1e6:.1f} MB")
    # In the folder where the crates that it needs are compiled already.
    cargo("build", "--quiet", "--locked", "--offline", "--target-dir", str(TARGET.parent), folder=folder)


def is_allowed(expression):
    """Whether the choices of an SPDX expression leave one that is allowed."""
    # Two operators and brackets: as Python reads them, with each licence in place of its name.
    plain = expression.replace("/", " OR ").replace("(", " ( ").replace(")", " ) ")
    words = re.sub(r"(\S+) WITH (\S+)", r"\1~WITH~\2", plain).split()
    spelled = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    text = " ".join(spelled.get(word) or str(word.replace("~", " ") in LICENCES) for word in words)
    require(re.fullmatch(r"(True|False|and|or|[() ])+", text), f"{expression} cannot be read")
    return eval(text)


@case
async def expressions_of_licences_are_read():
    for text, allowed in (
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT/Apache-2.0", True),
        ("(MIT OR GPL-2.0-only) AND Unicode-3.0", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
    ):
        expect(is_allowed(text), allowed, text)


@case
async def every_licence_is_allowed():
    here = cargo("-vV", capture_output=True)
    platform = re.search(r"^host: (\S+)", here, re.M)[1]
    asked = ("--offline", "--locked", "--all-features", "--format-version", "1", "--filter-platform", platform)
    packages = json.loads(cargo("metadata", *asked, capture_output=True))["packages"]
    require(len(packages) > 60, f"only {len(packages)} packages")
    for package in packages:
        expression = package["license"]
        require(expression and is_allowed(expression), f"{package['name']}: {expression}")


@case
async def the_licences_of_a_crate_without_its_source_are_an_error():
    # What stands for `cargo tree`, with the one crate whose texts nobody has.
    cargo = TARGET / "no-source/cargo"
    cargo.parent.mkdir(parents=True, exist_ok=True)
    cargo.write_text("#!/bin/sh\nprintf 'nowhere v1.2.3|MIT\\n'\n")
    cargo.chmod(0o755)
    path = f"{cargo.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ROOT / "packaging/third-party", env={**os.environ, "PATH": path}, text=True, capture_output=True
    )
    expect(done.returncode, 1, f"exit code, after {done.stdout!r}")
    require("nowhere 1.2.3" in done.stderr, f"it names the crate: {done.stderr!r}")


@case
async def every_crate_is_from_the_registry_and_none_is_banned():
    lock = (ROOT / "Cargo.lock").read_text()
    packages = re.findall(r'\[\[package\]\]\nname = "([^"]*)"\nversion = "[^"]*"\n(?:source = "([^"]*)"\n)?', lock)
    expect(len(packages), lock.count("[[package]]"), "packages that were read")
    for name, source in packages:
        expect(source, "" if name == "revolve" else SOURCE, f"where {name} is from")
        # Neither here nor for tests.
        require(not BANNED.fullmatch(name), f"{name} is banned")
    expect(lock.count("checksum = "), len(packages) - 1, "checksums")


@case
async def no_crate_is_linked_twice():
    def versions(*features):
        tree = cargo(
            "tree", "--locked", "--offline", "-e", "normal", "--prefix", "none", *features, capture_output=True
        )
        found = {}
        for line in filter(None, tree.splitlines()):
            name, version = line.split()[:2]
            found.setdefault(name, set()).add(version)
        require(len(found) > 30, f"only {len(found)} crates")
        return {name for name, versions in found.items() if len(versions) > 1}

    expect(versions(), set(), "crates of the default build in two versions")
    expect(versions("--all-features"), TWICE, "crates in two versions with all features")


run()
