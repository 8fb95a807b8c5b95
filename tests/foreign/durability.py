"""Cases: a daemon with a store that is killed, or told to stop, at a random moment, and started again.

Sixty-four clients count as fast as they can. After each start every one of them compares what the daemon
tells of its session with what it was told before and with what it has sent. FOREIGN_CRASHES says how many
times the daemon is killed (20 if not said).

Not here: a loss of power, which no process can bring about (tests/simulation/crashes.rs, tests/store).
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import tempfile

from harness import (
    BINARY, Daemon, Failure, case, command, environment, expect, note, require, run, until,
)
from raw import TEXT, Raw, frame
from scrape import scrape

CRASHES = int(os.environ.get("FOREIGN_CRASHES", "20"))
CLIENTS = 64
# Messages that a client has sent and not been answered, at most.
AHEAD = 4


class Counting:
    """One session, and what its client knows of it."""

    def __init__(self, number):
        self.query = f"?session_id=c{number}&hello=1"
        self.told = 0  # the greatest count that it was told
        self.sent = 0  # messages that it has ever sent
        self.lost = 0  # counts that it was told and that were not there after a start
        self.raw = None

    async def connect(self, daemon, may_lose=False):
        """Resumes, and compares."""
        raw = await Raw.open(daemon.port, self.query)
        hello = json.loads((await raw.frame()).payload)
        count = hello["count"]
        require(count <= self.sent, f"{self.query}: {count} counted, {self.sent} sent")
        if not may_lose:
            require(count >= self.told, f"{self.query}: was told {self.told}, and finds {count}")
        self.lost += max(0, self.told - count)
        self.told = count
        self.raw = raw

    async def count(self, stop):
        """Sends and reads until the connection ends, or it is told to stop and has all its answers."""
        ahead = 0
        try:
            while True:
                while ahead < AHEAD and not stop.is_set():
                    burst = random.randint(1, AHEAD - ahead)
                    # Written or not: it may have reached the daemon.
                    self.sent += burst
                    ahead += burst
                    await self.raw.send(frame(TEXT, "x") * burst)
                if ahead == 0:
                    return
                heard = await self.raw.frame()
                if heard.opcode != TEXT:
                    # Told goodbye: what it has still sent is not answered.
                    return await self.leave()
                count = json.loads(heard.payload)["count"]
                require(count == self.told + 1, f"{self.query}: {count} after {self.told}")
                self.told = count
                ahead -= 1
        except (OSError, EOFError, asyncio.IncompleteReadError):
            return

    async def count_beyond(self, least, seconds):
        """Counts until it was told more than that, and has all its answers."""
        stop = asyncio.Event()
        counting = asyncio.create_task(self.count(stop))
        await until(lambda: self.told > least, seconds, f"a count above {least}")
        stop.set()
        await counting

    async def leave(self):
        self.raw.writer.close()


def store_of(directory, *more):
    return ("--store", f"file:{directory}", "--heartbeat", "0", "--no-access-log", *more)


async def connect_all(clients, daemon, may_lose=False):
    await asyncio.gather(*(client.connect(daemon, may_lose) for client in clients))


async def end(daemon, how):
    daemon.send_signal(how)
    code = await daemon.ended(20)
    expect(code, 0 if how == signal.SIGTERM else -how, f"exit code after {how.name}")


@case(seconds=60 + 4 * CRASHES)
async def no_count_that_was_told_is_lost_when_the_daemon_is_killed():
    clients = [Counting(number) for number in range(CLIENTS)]
    workers = 2
    killed = 0
    with tempfile.TemporaryDirectory() as directory:
        while killed < CRASHES:
            options = store_of(directory, "--workers", str(workers))
            async with Daemon(*options) as daemon:
                await connect_all(clients, daemon)
                stop = asyncio.Event()
                counting = [asyncio.create_task(client.count(stop)) for client in clients]
                await asyncio.sleep(random.uniform(0.02, 0.4))
                how = signal.SIGTERM if random.random() < 0.2 else signal.SIGKILL
                killed += how == signal.SIGKILL
                await end(daemon, how)
                # What it had sent before it ended was told.
                await asyncio.gather(*counting)
                await asyncio.gather(*(client.leave() for client in clients))
            if random.random() < 0.3:
                workers = random.randint(1, 4)
        async with Daemon(*store_of(directory)) as daemon:
            await connect_all(clients, daemon)
            await asyncio.gather(*(client.leave() for client in clients))
    told = sum(client.told for client in clients)
    note(f"killed {killed} times: {told} counts told, 0 of them lost")


@case(seconds=120)
async def with_a_sync_that_comes_later_only_what_was_not_written_is_lost():
    clients = [Counting(number) for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory() as directory:
        options = store_of(directory, "--store-sync", "50")
        for _ in range(5):
            async with Daemon(*options) as daemon:
                await connect_all(clients, daemon, may_lose=True)
                stop = asyncio.Event()
                counting = [asyncio.create_task(client.count(stop)) for client in clients]
                await asyncio.sleep(random.uniform(0.05, 0.3))
                await end(daemon, signal.SIGKILL)
                await asyncio.gather(*counting)
                await asyncio.gather(*(client.leave() for client in clients))
        # When they have stopped, all of it is written a moment later.
        async with Daemon(*options) as daemon:
            await connect_all(clients, daemon, may_lose=True)
            lost = sum(client.lost for client in clients)
            stop = asyncio.Event()
            counting = [asyncio.create_task(client.count(stop)) for client in clients]
            await asyncio.sleep(0.2)
            stop.set()
            await asyncio.gather(*counting)

            async def all_written():
                before = await scrape(daemon)
                await asyncio.sleep(0.2)
                after = await scrape(daemon)
                name = "revolve_store_commits_total"
                return before.value(name) == after.value(name)

            await until(all_written, 10, "nothing more is written")
            await end(daemon, signal.SIGKILL)
        async with Daemon(*options) as daemon:
            await connect_all(clients, daemon)
            # And a drain loses nothing, however busy it is.
            stop = asyncio.Event()
            counting = [asyncio.create_task(client.count(stop)) for client in clients]
            await asyncio.sleep(0.2)
            await end(daemon, signal.SIGTERM)
            await asyncio.gather(*counting)
        async with Daemon(*options) as daemon:
            await connect_all(clients, daemon)
    told = sum(client.told for client in clients)
    note(f"killed 5 times while 64 clients counted: {lost} counts lost of {told}")


@case
async def a_restart_keeps_time_to_live_and_the_number_of_sessions():
    with tempfile.TemporaryDirectory() as directory:
        clients = [Counting(number) for number in range(8)]
        async with Daemon(*store_of(directory)) as daemon:
            for client in clients:
                await client.connect(daemon)
                await client.count_beyond(0, 5)
                await client.leave()
        async with Daemon(*store_of(directory, "--workers", "1", "--max-sessions", "3")) as daemon:
            found = await scrape(daemon)
            expect(found.value("revolve_sessions_detached", reactor="0"), 3, "sessions kept")
        async with Daemon(*store_of(directory, "--workers", "1")) as daemon:
            found = await scrape(daemon)
            expect(found.value("revolve_sessions_detached", reactor="0"), 3, "those dropped stay so")
            # The last that left are those that are kept.
            for client in clients[-3:]:
                await client.connect(daemon)
                await client.leave()
        await asyncio.sleep(1.1)
        async with Daemon(*store_of(directory, "--session-ttl", "1")) as daemon:
            found = await scrape(daemon)
            expect(found.value("revolve_store_recovered_sessions"), 0, "their time was over")


def refused(*options):
    code, out, error = command("--port", "0", *options)
    expect((code, out), (1, ""), f"exit code and stdout ({error!r})")
    expect(len(error.splitlines()), 1, f"lines ({error!r})")
    return error


@case
async def what_keeps_a_store_from_opening_is_one_line_that_names_the_file():
    with tempfile.TemporaryDirectory() as above:
        missing = os.path.join(above, "missing")
        require(f"{missing}: there is no such directory" in refused("--store", f"file:{missing}"), "none")
        plain = os.path.join(above, "plain")
        with open(plain, "w", encoding="ascii") as file:
            file.write("hello")
        require("this is no directory" in refused("--store", f"file:{plain}"), "a file")
        require("other files, such as plain" in refused("--store", f"file:{above}"), "not a store")
        directory = os.path.join(above, "store")
        os.mkdir(directory, 0o700)
        async with Daemon(*store_of(directory)) as daemon:
            line = refused("--store", f"file:{directory}")
            require("another process has this store open" in line, f"a second owner: {line!r}")
            client = Counting(1)
            await client.connect(daemon)
            await client.count_beyond(500, 10)
            await client.leave()
            # Beside a running server.
            code, out, _ = command("store", "check", directory)
            require(code == 0 and "no damage" in out, f"check: {out!r}")
            code, out, _ = command("store", "dump", directory)
            [line] = out.splitlines()
            expect((code, json.loads(line)["count"]), (0, client.told), "dump")
        await damage(directory, client)
        versions(directory)
        expect(command("store", "check", missing)[0], 1, "check of nothing")


async def damage(directory, client):
    [segment] = [name for name in sorted(os.listdir(directory)) if name.startswith("segment")][:1]
    path = os.path.join(directory, segment)
    with open(path, "r+b") as file:
        # In the first batches, behind the file's header.
        file.seek(512 + 200)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
    code, out, error = command("store", "check", directory)
    require(code == 1 and not out and f"{path}: damaged at byte" in error, f"check: {error!r}")
    line = refused("--store", f"file:{directory}")
    require(f"{path}: damaged at byte" in line and "--store-repair" in line, f"damage: {line!r}")
    async with Daemon(*store_of(directory, "--store-repair")) as daemon:
        require(any("repairing: " in line for line in daemon.lines()), "the log tells of the repair")
        client.told = 0
        await client.connect(daemon)
        await client.leave()
    async with Daemon(*store_of(directory)):
        pass


def versions(directory):
    [segment] = [name for name in sorted(os.listdir(directory)) if name.startswith("segment")][:1]
    path = os.path.join(directory, segment)
    with open(path, "rb") as file:
        head = file.read(16)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(bytes([head[8] ^ 0x40]))
    line = refused("--store", f"file:{directory}")
    require(path in line, f"another version: {line!r}")


@case
async def a_disk_that_is_full_ends_the_daemon_and_a_restart_goes_on():
    """With a limit on the size of files in place of a full disk: the next segment cannot be made."""
    import resource

    def limit():
        # EFBIG and no signal.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))

    with tempfile.TemporaryDirectory() as directory:
        options = [BINARY, "--port", "0", *store_of(directory)]
        done = await asyncio.to_thread(
            subprocess.run, options, preexec_fn=limit, capture_output=True, env=environment(),
            timeout=20, stdin=subprocess.DEVNULL, check=False,
        )
        error = done.stderr.decode()
        expect((done.returncode, len(error.splitlines())), (1, 1), f"exit code and lines ({error!r})")
        require(directory in error and "File too large" in error, f"it says {error!r}")
        async with Daemon(*store_of(directory)):
            pass


@case
async def a_write_that_fails_ends_the_daemon_and_nothing_that_was_told_is_lost():
    """With a limit on the size of files that comes while it runs, in place of a disk that fails."""
    import resource

    def ignore():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    clients = [Counting(number) for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory() as directory:
        async with Daemon(*store_of(directory), before=ignore) as daemon:
            await connect_all(clients, daemon)
            stop = asyncio.Event()
            counting = [asyncio.create_task(client.count(stop)) for client in clients]
            await until(lambda: all(client.told > 10 for client in clients), 10, "counts")
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
            expect(await daemon.ended(10), 1, "exit code")
            await asyncio.gather(*counting)
            told = [line for line in daemon.lines() if "cannot be stored" in line]
            expect(len(told), 1, f"lines about it ({daemon.lines()[-5:]})")
            require(directory in told[0] and "File too large" in told[0], f"it says {told[0]!r}")
        async with Daemon(*store_of(directory)) as daemon:
            await connect_all(clients, daemon)


run()
