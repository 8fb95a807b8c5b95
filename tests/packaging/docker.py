"""The image of packaging/docker, without Docker: the RUN lines of its Dockerfile are run here, in folders of their own, and
what they make is served from a root in which there is nothing else, as the user, with the environment and by the
entry point that the file says.

Not shown: that the base image is there, and COPY. Called by tests/run, as root: for chroot.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

import harness
from harness import ROOT, Daemon, case, expect, note, require, run, until

TARGET = os.environ["PACKAGED_TARGET"]

# Not under the system's own folder for such: that may allow no devices.
FOLDERS = pathlib.Path(TARGET)
FOLDERS.mkdir(parents=True, exist_ok=True)

# Always the same, so that the build of a run before is used again.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def instructions():
    """Of the Dockerfile: (name, the rest), continued lines joined; a list for each stage."""
    text = (ROOT / "packaging/docker/Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", "")
    stages = [[]]
    for line in filter(None, text.splitlines()):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, rest.strip()))
    return stages


def of(stage, name):
    return [rest for found, rest in stage if found == name]


def environment(stage):
    return dict(pair.split("=", 1) for rest in of(stage, "ENV") for pair in shlex.split(rest))


def image(folder):
    """Runs the stage that builds; returns the root of the image."""
    _, build, _ = instructions()
    root = f"{folder}/image"
    require("BUILT_FROM_COMMIT" in of(build, "ARG"), "the commit is no argument of the build")
    require(environment(build)["CARGO_TARGET_DIR"], "the folder of the build is not named")
    given = dict(os.environ, CARGO_TARGET_DIR=TARGET, BUILT_FROM_COMMIT=COMMIT)
    for line in of(build, "RUN"):
        done = subprocess.run(
            ["sh", "-ec", line.replace("/image", root)], cwd=ROOT, env=given, stdin=subprocess.DEVNULL
        )
        expect(done.returncode, 0, f"RUN {line}")
    return pathlib.Path(root)


@case(seconds=900)
async def the_image_has_the_program_alone_and_it_serves():
    _, _, stage = instructions()
    expect(of(stage, "FROM"), ["scratch"], "what the image is made on")
    expect(of(stage, "COPY"), ["--from=build /image /"], "what is in it")
    expect(of(stage, "STOPSIGNAL"), ["SIGTERM"], "what stops it")
    expect(of(stage, "EXPOSE"), ["8000"], "its port")
    user = of(stage, "USER")[0]
    require(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), f"{user} needs a file of users")
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder:
        os.chmod(folder, 0o755)
        root = image(folder)
        files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
        expect(files, {"revolve", "third-party.txt", "LICENSE-APACHE", "LICENSE-MIT"}, "its files")
        size = (root / "revolve").stat().st_size
        note(f"the program has {size / 1e6:.1f} MB, and the image {len(files)} files")
        # Of the devices that every container has (OCI runtime specification, default devices) those that are used: a
        # static program finds no getrandom in its C library.
        (root / "dev").mkdir()
        for minor, name in ((8, "random"), (9, "urandom")):
            os.mknod(root / "dev" / name, 0o020666, os.makedev(1, minor))
            os.chmod(root / "dev" / name, 0o666)
        (program,) = json.loads(of(stage, "ENTRYPOINT")[0])
        wrapper = pathlib.Path(folder, "contained")
        wrapper.write_text(f'#!/bin/sh\nexec chroot --userspec={user} {root} {program} "$@"\n')
        wrapper.chmod(0o755)
        harness.BINARY = str(wrapper)
        code, version, _ = harness.command("--version")
        expect(code, 0, "--version")
        require(f"(commit {COMMIT[:12]}; features: daemon, deflate, tls)" in version, version)
        extra = environment(stage)
        for count in (1, 2):
            async with Daemon("--store", "file:/var/lib/revolve", extra=extra) as daemon:
                await until(lambda: b"listening on 0.0.0.0:" in daemon.log, 5, "that it listens to all")
                async with daemon.connect("?session_id=a") as client:
                    await client.send("hello")
                    expect(await client.recv(), f'{{"count": {count}}}', "reply")
        # Names: Docker mounts a file of hosts, and a static C library has to find what is in it.
        (root / "etc").mkdir()
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.0.1 container\n")
        async with Daemon("--host", "container", extra=extra) as daemon:
            async with daemon.connect() as client:
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "reply")


run()
