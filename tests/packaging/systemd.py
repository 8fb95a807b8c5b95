"""The units of packaging/systemd: systemd reads them without a word and finds little that the service could do elsewhere;
and all that the real program does under strace is allowed by them.

There is no systemd that runs here, so nothing is started by it. Called by tests/run, which has seen to it that
systemd-analyze, systemd-sysusers and strace are there.
"""

import asyncio
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

import harness
from harness import ROOT, Daemon, case, command, expect, require, run

UNITS = ROOT / "packaging/systemd"

# What systemd calls the exposure of the service, times ten: 0 is none. What is left is the network and its addresses.
EXPOSURE_MAX = 11


def settings(unit):
    """Each setting of a unit, with its values in their order."""
    found = {}
    for line in (UNITS / unit).read_text().splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def for_this_binary(folder):
    """The units, with the program under test in the place of the installed one."""
    paths = []
    for unit in sorted([*UNITS.glob("*.service"), *UNITS.glob("*.socket")]):
        text = unit.read_text().replace("/usr/bin/revolve", harness.BINARY)
        # And as the template for several servers.
        for name in {unit.name, unit.name.replace("revolve.service", "revolve@a.service")}:
            paths.append(pathlib.Path(folder, name))
            paths[-1].write_text(text)
    return [str(path) for path in paths]


def said(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@case
async def systemd_reads_the_units_without_a_word():
    with tempfile.TemporaryDirectory() as folder:
        units = for_this_binary(folder)
        require(len(units) >= 3, f"only {units}")
        expect(said("systemd-analyze", "verify", "--man=no", *units), (0, "", ""), "verify")
        # It does notice mistakes.
        broken = pathlib.Path(folder, "revolve.service")
        broken.write_text(broken.read_text().replace("ProtectSystem=strict", "ProtectSystem=stern"))
        _, _, errors = said("systemd-analyze", "verify", "--man=no", str(broken))
        require("stern" in errors, f"nothing is said of a mistake: {errors}")


@case
async def the_service_is_exposed_to_the_network_and_to_little_else():
    with tempfile.TemporaryDirectory() as folder:
        for unit in for_this_binary(folder):
            if unit.endswith(".service"):
                judge = ("systemd-analyze", "security", "--offline=true", "--no-pager")
                code, table, errors = said(*judge, f"--threshold={EXPOSURE_MAX}", unit)
                expect((code, errors), (0, ""), f"security of {unit}: {table}")


@case
async def the_file_of_options_can_be_used_as_it_is_and_so_can_its_examples():
    text = (ROOT / "packaging/revolve.toml").read_text()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "revolve.toml")
        # Its directories have to be there.
        text = text.replace("/var/lib/revolve", folder).replace("/run/revolve", folder)

        def checked(text):
            file.write_text(text)
            code, out, errors = command("--config", str(file), "--check-config")
            expect((code, errors), (0, ""), f"--check-config, which ends with {text[-80:]}")
            return out

        require(f"stored in file:{folder}" in checked(text), "sessions are stored")
        examples = re.findall(r"^# ([a-z-]+) = (.*)$", text, re.M)
        require(len(examples) > 15, f"only {len(examples)} examples")
        for name, value in examples:
            if name.startswith("ssl-"):
                # For builds with TLS, where the files have to be there: the option is known.
                _, out, _ = command("--print-config")
                require(f"# {name}: none, default" in out, f"there is no {name}")
                continue
            checked(f"{text}\n{name} = {value}\n")
            _, out, errors = command("--config", str(file), "--print-config")
            require(f"\n{name} = " in out, f"{name} is not taken: {errors}")


@case
async def the_user_is_made():
    with tempfile.TemporaryDirectory() as root:
        pathlib.Path(root, "etc").mkdir()
        file = UNITS / "sysusers.conf"
        code, _, errors = said("systemd-sysusers", f"--root={root}", str(file))
        expect(code, 0, f"systemd-sysusers says {errors}")
        users = pathlib.Path(root, "etc/passwd").read_text()
        require(re.search(r"^revolve:x:\d+:\d+:[^:]*:/var/lib/revolve:/usr/sbin/nologin$", users, re.M), users)
        expect(settings("revolve.service")["User"], ["revolve"], "the user of the unit")


def allowed_calls():
    """What SystemCallFilter= comes to, by the groups that systemd itself knows."""
    # To stderr goes at most that the kernel has no list of calls to compare with.
    code, text, _ = said("systemd-analyze", "syscall-filter", "--no-pager")
    expect(code, 0, "syscall-filter")
    groups = {}
    for line in text.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.add(line.strip())

    def calls(word):
        return set().union(*map(calls, groups[word])) if word.startswith("@") else {word}

    found = calls("@default")
    for value in settings("revolve.service")["SystemCallFilter"]:
        listed = set().union(*map(calls, value.removeprefix("~").split()))
        found = found - listed if value.startswith("~") else found | listed
    require(100 < len(found) < 400, f"{len(found)} calls are allowed")
    return found


async def all_that_it_does(folder):
    """Runs the command line of the unit under strace, and has it do what a service does; returns what strace saw."""
    service = settings("revolve.service")
    (program, *arguments) = shlex.split(service["ExecStart"][0].replace("%N", "revolve"))
    expect(program, "/usr/bin/revolve", "the program of the unit")
    config = folder / "revolve.toml"
    expect(arguments, ["--config", "/etc/revolve/revolve.toml"], "its arguments")
    for name in ("state", "run"):
        (folder / name).mkdir(mode=0o700)
    config.write_text(
        f'host = "localhost"\nstore = "file:{folder}/state"\nlog-file = "/dev/stderr"\n'
        f'admin = "unix:{folder}/run/admin.sock:660"\n'
    )
    trace, wrapper = folder / "trace", folder / "traced"
    # -D: the daemon is our child, and strace is not.
    wrapper.write_text(f'#!/bin/sh\nexec strace -D -f -qq -s 256 -o {trace} -- {harness.BINARY} "$@"\n')
    wrapper.chmod(0o755)
    plain, harness.BINARY = harness.BINARY, str(wrapper)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(folder / "notify"))
        supervisor.settimeout(20)
        extra = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"}

        async def told(wanted):
            while (await asyncio.to_thread(supervisor.recv, 4096)).split(b"\n")[0] != wanted:
                pass

        try:
            async with Daemon("--config", str(config), extra=extra) as daemon:
                await told(b"READY=1")
                await told(b"WATCHDOG=1")
                async with daemon.connect("?session_id=a") as client:
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply")
                    code, _, errors = said(
                        "sh", "-c", f"MAINPID={daemon.process.pid}; {service['ExecReload'][0]}"
                    )
                    expect((code, errors), (0, ""), "ExecReload")
                    await told(b"RELOADING=1")
                    await told(b"READY=1")
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 2}', "reply")
                await daemon.stop(signal.SIGTERM)
                await told(b"STOPPING=1")
        finally:
            harness.BINARY = plain
    lines = []
    for line in trace.read_text(errors="replace").splitlines():
        text = line.split(maxsplit=1)[1]
        if re.match(r"[a-z0-9_]+\(", text):
            lines.append(text)
    require(len(lines) > 500, f"strace saw only {len(lines)} calls")
    return lines


@case(seconds=60)
async def what_the_program_does_the_unit_allows():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = await all_that_it_does(folder)
        service = settings("revolve.service")
        calls = {line.split("(")[0] for line in lines}
        require({"epoll_wait", "fdatasync", "recvfrom"} <= calls, f"it did not do much: {calls}")
        expect(calls - allowed_calls(), set(), "calls that SystemCallFilter= does not allow")
        families = {m[1] for line in lines if (m := re.match(r"socket(?:pair)?\((AF_\w+)", line))}
        require("AF_UNIX" in families and "AF_INET" in families, f"families: {families}")
        allowed = set(service["RestrictAddressFamilies"][0].split())
        expect(families - allowed, set(), "families that RestrictAddressFamilies= does not allow")
        for line in lines:
            # MemoryDenyWriteExecute=
            maps = line.startswith(("mmap(", "mprotect("))
            require(not (maps and "PROT_WRITE|PROT_EXEC" in line), line)
            opened = re.match(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]*)", ([A-Z_|]+)', line)
            if opened is None or opened[1] in ("/dev/null", "/dev/stderr"):
                continue
            path, flags = opened.groups()
            # ProtectSystem=strict leaves it the directories of the unit to write to.
            if re.search(r"O_WRONLY|O_RDWR|O_CREAT", flags):
                require(path.startswith((f"{folder}/state", f"{folder}/run")), f"it writes elsewhere: {line}")
            # PrivateDevices= and ProtectProc= leave it these.
            require(not path.startswith("/dev/") or path == "/dev/urandom", line)
            require(not re.match(r"/proc/\d", path), f"it looks at another process: {line}")


run()
