"""Cases: options in a file, and settings that change while the daemon runs: SIGHUP under traffic, a log file that is
rotated, a full disk, what systemd is told.

Not here: each option's values and each mistake of the file (the daemon's own tests), what a change means for
connections (tests/server).
"""

import asyncio
import json
import os
import pathlib
import signal
import socket
import tempfile

import websockets

from harness import PATH, Daemon, case, command, expect, require, run, until
from scrape import scrape


class Folder(tempfile.TemporaryDirectory):
    """A directory for a case; `write` replaces its file of options as editors do."""

    def __enter__(self):
        self.path = pathlib.Path(super().__enter__())
        self.config = self.path / "revolve.toml"
        return self

    def write(self, *lines):
        new = self.path / "new"
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.config)
        return str(self.config)


async def reread(daemon, *lines):
    """SIGHUP, and these lines appear in the log on stderr."""
    before = len(daemon.lines())
    daemon.send_signal(signal.SIGHUP)
    for line in lines:
        await until(
            lambda line=line: any(line in told for told in daemon.lines()[before:]), 10, f"a line {line!r}"
        )


async def status_for(daemon, origin):
    try:
        async with daemon.connect(origin=origin) as client:
            return client.response.status_code
    except websockets.InvalidStatus as error:
        return error.response.status_code


@case
async def flags_win_over_variables_and_these_over_the_file():
    with Folder() as folder:
        file = folder.write("port = 1", "backlog = 1", "workers = 1", 'header = ["A: 1", "B: 2"]')
        extra = {"REVOLVE_CONFIG": file, "REVOLVE_BACKLOG": "2", "REVOLVE_WORKERS": "2"}
        code, out, err = command("--workers", "3", "--print-config", extra=extra)
        expect((code, err), (0, ""), "exit code and stderr")
        for line in (
            f"port = 1  # {file}:1",
            "backlog = 2  # REVOLVE_BACKLOG",
            "workers = 3  # --workers",
            f'header = ["A: 1", "B: 2"]  # {file}:4',
            "# ws-max-size = 16777216  # default",
        ):
            require(line in out.splitlines(), f"{line!r} is not in {out}")
        again = folder.path / "again.toml"
        again.write_text(out)
        code, second, err = command("--config", str(again), "--print-config")
        expect((code, err), (0, ""), "exit code and stderr of what was printed")
        plain = lambda text: [line.split("  #")[0] for line in text.splitlines() if "config:" not in line]
        expect(plain(second), plain(out), "what is printed of what was printed")


@case
async def a_mistake_in_the_file_is_one_line_and_exit_2():
    with Folder() as folder:
        for lines, place, words in (
            (("port = 1", "prot = 2"), 2, ("prot", "port?")),
            (("", "", 'port = "1"'), 3, ("port", "a number")),
            (("workers = 0",), 1, ("workers", "from 1 to 1024")),
            (("[server]",), 1, ("tables",)),
            (("page = on",), 1, ("on", "true or false")),
        ):
            file = folder.write(*lines)
            for more in ((), ("--check-config",), ("--print-config",)):
                code, out, err = command("--config", file, *more)
                expect((code, out, len(err.splitlines())), (2, "", 1), f"{lines} {more}: {err!r}")
                require(err.startswith(f"revolve: {file}:{place}: "), f"{lines}: {err!r}")
                for word in words:
                    require(word in err, f"{word} is not in {err!r}")
        code, out, err = command("--config", str(folder.path / "none"))
        expect((code, out, len(err.splitlines())), (2, "", 1), "no file")


@case
async def check_config_says_what_would_be_done_and_does_nothing():
    async with Daemon() as daemon:
        # The port is in use, and the check does not care.
        code, out, err = command("--port", str(daemon.port), "--check-config")
        expect((code, err), (0, ""), "exit code and stderr")
        require(f"listening on 127.0.0.1:{daemon.port}" in out, out)
    with Folder() as folder:
        store = folder.path / "store"
        code, out, err = command("--store", f"file:{store}", "--check-config")
        expect((code, out), (1, ""), "exit code and stdout without the directory")
        require(str(store) in err and len(err.splitlines()) == 1, err)
        store.mkdir()
        code, out, err = command("--store", f"file:{store}", "--check-config")
        expect((code, err, os.listdir(store)), (0, "", []), "exit code, stderr, and what is made")
        code, out, err = command("--log-file", str(folder.path / "none" / "log"), "--check-config")
        expect((code, out, len(err.splitlines())), (1, "", 1), f"a log without its directory: {err!r}")


@case(seconds=60)
async def settings_change_under_traffic():
    with Folder() as folder:
        allows = [f'allowed-origins = ["https://{name}.example"]' for name in "ab"]
        file = folder.write(allows[0], "limit-per-ip = 100")
        async with Daemon("--config", file, "--workers", "2", "--no-access-log") as daemon:
            url = f"ws://127.0.0.1:{daemon.port}{PATH}"
            goes_on, counts = True, []

            async def talk():
                async with websockets.connect(url, proxy=None, origin=None) as client:
                    count = 0
                    while goes_on:
                        count += 1
                        await client.send("hello")
                        expect(await client.recv(), f'{{"count": {count}}}', "a reply")
                    counts.append(count)

            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(talk())
                for turn in range(1, 21):
                    allowed, other = ("ab", "ba")[turn % 2]
                    folder.write(allows["ab".index(allowed)], f"limit-per-ip = {100 + turn}")
                    was_changed = f"--limit-per-ip is {100 + turn} now"
                    await reread(daemon, was_changed)
                    expect(await status_for(daemon, f"https://{allowed}.example"), 101, f"turn {turn}")
                    expect(await status_for(daemon, f"https://{other}.example"), 403, f"turn {turn}")
                goes_on = False
            require(len(counts) == 8 and min(counts) > 20, f"they talked meanwhile: {counts}")


@case
async def what_is_wrong_or_needs_a_restart_is_told_and_the_server_goes_on():
    with Folder() as folder:
        file = folder.write("workers = 1", "limit-per-ip = 5")
        async with Daemon("--config", file, "--heartbeat", "7") as daemon:
            async with daemon.connect() as client:
                await reread(daemon, "SIGHUP: the settings have not changed")
                folder.write("workers = 2", "limit-per-ip = 9", "heartbeat = 1")
                await reread(
                    daemon,
                    f"SIGHUP: --limit-per-ip is 9 now ({file}:2); it was 5",
                    f"SIGHUP: --workers stays 1; 2 ({file}:1) needs a restart",
                )
                require(not any("--heartbeat" in line for line in daemon.lines()), "a flag wins still")
                folder.write("workers = 2", "limit-per-ip = many")
                await reread(daemon, f"SIGHUP: the settings stay as they are: {file}:2: ")
                folder.config.unlink()
                await reread(daemon, "SIGHUP: the settings stay as they are: --config: cannot read")
                folder.write("workers = 1", "limit-per-ip = 9", 'log-level = "error"')
                await reread(daemon, "--log-level is error now")
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "reply after all that")
        # At this level a drain says nothing.
        require("draining" not in daemon.lines()[-1], f"{daemon.lines()[-1]}")


@case
async def what_is_short_with_new_settings_is_told_once():
    with Folder() as folder:
        file = folder.write("limit-concurrency = 10")
        async with Daemon("--config", file) as daemon:
            require(not any("descriptors:" in line for line in daemon.lines()), "nothing is short yet")
            folder.write("limit-concurrency = 100000000")
            await reread(daemon, "descriptors: --limit-concurrency 100000000 asks for", "memory: now at most")
            folder.write("limit-concurrency = 100000000", "page = false")
            await reread(daemon, "--page is off now")
            await reread(daemon, "the settings have not changed")
            expect(sum("descriptors:" in line for line in daemon.lines()), 1, "lines about it")


@case(seconds=60)
async def a_log_file_is_rotated_and_no_line_is_lost():
    with Folder() as folder:
        log = folder.path / "log"
        file = folder.write('log-file = "/dev/stderr"')
        options = ("--config", file, "--workers", "2", "--log-format", "json")
        async with Daemon(*options) as daemon:
            folder.write(f'log-file = "{log}"')
            daemon.send_signal(signal.SIGHUP)
            await until(log.exists, 10, "the file")
            number = 0

            async def come_and_go():
                nonlocal number
                for _ in range(30):
                    number += 1
                    async with daemon.connect(f"?session_id=rotate-{number}"):
                        pass

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(come_and_go()) for _ in range(8)]
                turn = 0
                while turn < 10 or not all(task.done() for task in tasks):
                    turn += 1
                    log.rename(folder.path / f"log.{turn}")
                    daemon.send_signal(signal.SIGHUP)
                    await until(log.exists, 10, "the file is opened anew")
            await daemon.stop()
        files = sorted(folder.path.glob("log*"))
        records = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        closes = [record for record in records if "connection" in record and "code" in record]
        opens = [record for record in records if "connection" in record and "code" not in record]
        expect((number, len(opens), len(closes)), (240, 240, 240), f"lines in {len(files)} files")
        require(any("stopped:" in record["message"] for record in records), "its last line is there")


@case
async def a_full_disk_costs_lines_and_nothing_else():
    with Folder() as folder:
        log = folder.path / "log"
        file = folder.write('log-file = "/dev/stderr"')
        async with Daemon("--config", file) as daemon:
            folder.write('log-file = "/dev/full"')
            # The log cannot tell; stderr does, once.
            await reread(daemon, "revolve: cannot write to the log file /dev/full: No space left")
            for _ in range(5):
                async with daemon.connect() as client:
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply")

            async def are_counted():
                return (await scrape(daemon)).value("revolve_log_lines_dropped_total") >= 10

            await until(are_counted, 10, "the lines of five connections are counted")
            told = [line for line in daemon.lines() if "/dev/full" in line]
            expect(len(told), 1, "lines on stderr")
            folder.write(f'log-file = "{log}"')
            daemon.send_signal(signal.SIGHUP)
            dropped = "log lines dropped: the log file /dev/full did not take them"
            await until(lambda: log.exists() and dropped in log.read_text(), 10, "the hole is told of")
            # A file that cannot be opened keeps all settings, and the log where it is.
            nowhere = folder.path / "none" / "log"
            for _ in range(2):
                folder.write(f'log-file = "{nowhere}"', 'log-level = "error"')
                daemon.send_signal(signal.SIGHUP)
                kept = f"SIGHUP: the settings stay as they are: cannot open the log file {nowhere}"
                await until(lambda: log.exists() and kept in log.read_text(), 10, "that the settings stay")
                log.rename(folder.path / "rotated")
            folder.write(f'log-file = "{log}"', "limit-per-ip = 0")
            daemon.send_signal(signal.SIGHUP)
            await until(lambda: log.exists() and "limit-per-ip" in log.read_text(), 10, "that it goes on there")
        code, out, err = command("--log-file", str(folder.path / "none" / "log"), "--port", "0")
        expect((code, out, len(err.splitlines())), (1, "", 1), f"a directory that is not there: {err!r}")
        require("cannot open the log file" in err, err)


@case
async def a_supervisor_is_told():
    with Folder() as folder:
        path = folder.path / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind(str(path))
            supervisor.settimeout(10)
            extra = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}

            async def told(wanted):
                """The next that is not about the watchdog begins so; how often that was fed before."""
                fed = 0
                while (text := (await asyncio.to_thread(supervisor.recv, 4096)).decode()) == "WATCHDOG=1":
                    fed += 1
                require(text.startswith(wanted), f"{text!r} does not begin with {wanted!r}")
                return fed, text

            async with Daemon("--workers", "3", extra=extra) as daemon:
                _, text = await told("READY=1\n")
                require(f"STATUS=serving on 127.0.0.1:{daemon.port}" in text, text)
                for _ in range(3):
                    expect(await asyncio.to_thread(supervisor.recv, 4096), b"WATCHDOG=1", "it is fed")
                daemon.send_signal(signal.SIGHUP)
                await told("RELOADING=1\nMONOTONIC_USEC=")
                await told("READY=1\n")
                await daemon.stop()
                await told("STOPPING=1\n")


@case(seconds=60)
async def goodbyes_are_spread_and_the_others_are_served_meanwhile():
    options = ("--drain-over", "3", "--workers", "1", "--no-access-log")
    async with Daemon(*options) as daemon:
        clients = [await daemon.connect() for _ in range(6)]
        stopping = asyncio.create_task(daemon.stop(seconds=20))
        order = []

        async def listen(number, client):
            try:
                await client.recv()
            except websockets.ConnectionClosed:
                expect(client.close_code, 1001, "close code")
                order.append(number)

        tasks = [asyncio.create_task(listen(*pair)) for pair in enumerate(clients[:5])]
        await tasks[0]
        require(len(order) < 5, "not all at once")
        await clients[5].send("hello")
        expect(await clients[5].recv(), '{"count": 1}', "who has not been told is served")
        await asyncio.gather(*tasks, listen(5, clients[5]))
        expect(len(order), 6, "all are told")
        await stopping


run()
