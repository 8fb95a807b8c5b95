"""packaging/blue-green/switch with real programs: HAProxy with the configurations of packaging/, a Redis, two servers, and
clients that count all the time and come back with their session. Switches lose no count; a new server that does not
start, or never becomes ready, is ended, and the old one and its clients do not notice.

In place of systemd a few lines of shell start a server in the background and end it by SIGTERM. Asserts no times. Called by
tests/run, which has seen to it that haproxy, redis-server, socat and curl are there.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

import websockets

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

import harness
from harness import PATH, ROOT, case, environment, expect, note, require, run, until

PACKAGING = ROOT / "packaging"
CLIENTS = 60

# As `systemctl start` and `stop` of a unit: start returns when it runs, stop when it has ended.
CONTROL = """
cd {folder}
case $1 in
start)
    {binary} --config $2.toml >>$2.log 2>&1 &
    echo $! >$2.pid
    ;;
stop)
    # It may have ended by itself.
    kill -TERM "$(cat $2.pid)" 2>/dev/null || exit 0
    while kill -0 "$(cat $2.pid)" 2>/dev/null; do sleep 0.05; done
    ;;
esac
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def replaced(text, **others):
    """With each of these, which has to be there, replaced."""
    for old, new in others.values():
        require(old in text, f"there is no {old!r}")
        text = text.replace(old, new)
    return text


class Client:
    """Counts, and comes back when it is told to leave. Knows what it was told last, and how much it has sent."""

    def __init__(self, url, number):
        self.url = f"{url}?session_id=client-{number}"
        self.told = self.sent = self.lost = self.opened = self.left = 0
        self.strange = []

    def note_count(self, count, what):
        if not self.told <= count <= self.sent:
            self.lost += 1
            self.strange.append(f"{what} {count}: told {self.told}, sent {self.sent}")

    async def run(self):
        while True:
            try:
                async with websockets.connect(self.url, proxy=None, open_timeout=10) as socket:
                    self.opened += 1
                    self.note_count(int(socket.response.headers["X-Session-Count"]), "resumed at")
                    while True:
                        self.sent += 1
                        await socket.send("hello")
                        count = json.loads(await socket.recv())["count"]
                        self.note_count(count, "counted")
                        # No count is told twice.
                        if count == self.told:
                            self.lost += 1
                        self.told = count
                        await asyncio.sleep(0.02)
            except (OSError, websockets.WebSocketException):
                self.left += 1
                await asyncio.sleep(0.05)


class Place:
    """A folder with both servers' files, HAProxy and Redis running, and a server."""

    def __init__(self, folder):
        self.folder = folder
        self.public, stats, *self.ports = free_ports(4)
        self.redis = folder / "redis.sock"
        self.haproxy = folder / "haproxy.sock"
        for name, port in zip("ab", self.ports):
            self.configure(name, port)
        text = replaced(
            (PACKAGING / "haproxy/revolve.cfg").read_text(),
            public=("bind :8000", f"bind 127.0.0.1:{self.public}"),
            a=("127.0.0.1:8001", f"127.0.0.1:{self.ports[0]}"),
            b=("127.0.0.1:8002", f"127.0.0.1:{self.ports[1]}"),
            stats=("127.0.0.1:8404", f"127.0.0.1:{stats}"),
        )
        (folder / "revolve.cfg").write_text(text)
        text = (PACKAGING / "blue-green/runtime.cfg").read_text()
        text = replaced(text, socket=("/run/haproxy/admin.sock", str(self.haproxy)))
        (folder / "runtime.cfg").write_text(text)
        control = folder / "control"
        control.write_text(CONTROL.format(folder=folder, binary=harness.BINARY))
        self.control = f"sh {control}"

    def configure(self, name, port):
        """As the sample says, with these addresses."""
        text = replaced(
            (PACKAGING / "blue-green/server.toml").read_text(),
            name=('node = "a"', f'node = "{name}"'),
            port=("port = 8001", f"port = {port}"),
            store=("redis://127.0.0.1:6379/0", f"unix:{self.redis}"),
        )
        (self.folder / f"{name}.toml").write_text(text)

    @contextlib.contextmanager
    def around(self):
        """Redis, HAProxy and the first server, until the block ends."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": environment()}
        bare = ("--port", "0", "--unixsocket", str(self.redis), "--save", "", "--dir", str(self.folder))
        children = [subprocess.Popen(["redis-server", *bare], **options)]
        try:
            files = ("-f", str(self.folder / "revolve.cfg"), "-f", str(self.folder / "runtime.cfg"))
            # What it says of servers that are down is expected.
            quiet = options | {"stderr": subprocess.DEVNULL}
            children.append(subprocess.Popen(["haproxy", "-db", *files], **quiet))
            subprocess.run([*self.control.split(), "start", "a"], check=True, env=environment())
            yield
        finally:
            for name in "ab":
                if self.pid(name):
                    os.kill(self.pid(name), signal.SIGKILL)
            for child in children:
                child.terminate()
                child.wait(20)

    def pid(self, name):
        """Of the server that runs under this name, if one does."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, ValueError):
            return None
        return None if state == "Z" else pid

    def log(self, name):
        file = self.folder / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def states(self):
        """What HAProxy thinks of both servers."""
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.settimeout(10)
            runtime.connect(str(self.haproxy))
            runtime.sendall(b"show stat\n")
            text = b""
            while piece := runtime.recv(65536):
                text += piece
        lines = text.decode().removeprefix("# ").splitlines()
        column = lines[0].split(",").index("status")
        rows = [line.split(",") for line in lines[1:] if line.startswith("revolve,")]
        return {row[1]: row[column] for row in rows if row[1] in ("a", "b")}

    async def begin_switch(self, **settings):
        settings = {
            "SWITCH_HAPROXY": str(self.haproxy),
            "SWITCH_START": f"{self.control} start NAME",
            "SWITCH_STOP": f"{self.control} stop NAME",
        } | settings
        return await asyncio.create_subprocess_exec(
            str(PACKAGING / "blue-green/switch"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(settings),
        )

    async def switch(self, **settings):
        """Its exit code, and what it says."""
        child = await self.begin_switch(**settings)
        said, _ = await child.communicate()
        return child.returncode, said.decode()


@contextlib.asynccontextmanager
async def crowd(place):
    """Clients that count all the time behind HAProxy; at the end none has lost anything."""
    clients = [Client(f"ws://127.0.0.1:{place.public}{PATH}", number) for number in range(CLIENTS)]
    tasks = [asyncio.create_task(client.run()) for client in clients]

    async def count_on(more=5):
        goals = [client.told + more for client in clients]

        def have():
            for task in tasks:
                if task.done():
                    task.result()
            return all(client.told >= goal for client, goal in zip(clients, goals))

        await until(have, 60, f"that each client counts {more} more")

    try:
        yield clients, count_on
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    strange = [line for client in clients for line in client.strange]
    expect((sum(client.lost for client in clients), strange[:5]), (0, []), "counts that were lost")
    counts, left = sum(c.told for c in clients), sum(c.left for c in clients)
    note(f"{counts} counts of {CLIENTS} clients, which left {left} times; none was lost")


@case(seconds=240)
async def switches_under_load_lose_nothing_and_a_bad_server_is_not_switched_to():
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(folder))
        with place.around():
            await until(place.haproxy.exists, 20, "that HAProxy listens")
            await until(lambda: place.states() == {"a": "UP", "b": "DOWN"}, 20, "that a is in, and b is not")
            async with crowd(place) as (clients, count_on):
                await count_on()
                old, new = "a", "b"
                for _ in range(4):
                    before = place.pid(old)
                    code, said = await place.switch()
                    expect(code, 0, f"switch to {new} says {said}")
                    steps = [f"{old} serves; starting {new}", f"{new} is ready", f"draining {old}"]
                    for step in [*steps, f"{old} has ended; {new} serves"]:
                        require(step in said, f"{step!r} is not said: {said}")
                    expect(place.states(), {old: "MAINT", new: "UP"}, "HAProxy has")
                    require(before and place.pid(old) is None, f"{old} still runs")
                    require(place.log(old).rstrip().splitlines()[-1].find("stopped:") > 0, place.log(old))
                    await count_on()
                    old, new = new, old
                require(all(client.opened == 5 for client in clients), "a client was told to leave more than once")
                await refused(place, count_on, clients)
                # Mended, it is switched to.
                place.configure("b", place.ports[1])
                expect((await place.switch())[0], 0, "a switch to what was mended")
                await count_on()


async def refused(place, count_on, clients):
    """New servers that cannot serve. a serves, and b is to be the new one."""
    serving, opened = place.pid("a"), [client.opened for client in clients]
    file = place.folder / "b.toml"
    good = file.read_text()
    away = replaced(good, store=(f"unix:{place.redis}", f"unix:{place.folder}/nowhere.sock"))
    for what, text, reason in (
        # It ends at once, with a line.
        ("a mistake", good + "prot = 1\n", "b is not ready"),
        # It runs, and is 503 for ever.
        ("no store", away, "b is not ready"),
    ):
        file.write_text(text)
        code, said = await place.switch(SWITCH_SECONDS="2")
        expect(code, 1, f"switch with {what} says {said}")
        require(reason in said and "b is ended again; a serves on as before" in said, said)
        expect((place.pid("a"), place.pid("b")), (serving, None), f"what runs behind {what}")
        await count_on()
        expect(place.states(), {"a": "UP", "b": "MAINT"}, f"HAProxy has, behind {what}")
    require("unknown option prot" in place.log("b"), place.log("b"))
    # What starts says so itself.
    code, said = await place.switch(SWITCH_START="false")
    require(code == 1 and "b does not start" in said, said)
    # Somebody ends the switch while it waits.
    child = await place.begin_switch()
    await until(lambda: place.pid("b"), 20, "that b is started")
    child.terminate()
    said = (await child.communicate())[0].decode()
    expect(child.returncode, 1, f"a switch that is ended says {said}")
    require("b is ended again; a serves on as before" in said, said)
    expect((place.pid("a"), place.pid("b")), (serving, None), "what runs behind that")
    await count_on()
    expect([client.opened for client in clients], opened, "no client was told to leave")


@case
async def what_it_cannot_work_with_is_a_line():
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(folder))
        code, said = await place.switch()
        require(code == 1 and re.fullmatch(r"switch: .*haproxy.sock is no socket: .*\n", said), said)
        with place.around():
            await until(place.haproxy.exists, 20, "that HAProxy listens")
            await until(lambda: place.states() == {"a": "UP", "b": "DOWN"}, 20, "that a is in, and b is not")
            for settings, line in (
                ({"SWITCH_SERVERS": "a c"}, "HAProxy has no server c in the backend revolve"),
                ({"SWITCH_SERVERS": "a"}, "SWITCH_SERVERS has to name two servers"),
                ({"SWITCH_SERVERS": "a b;reboot"}, "b;reboot is no name of a server"),
            ):
                code, said = await place.switch(**settings)
                expect((code, said), (1, f"switch: {line}\n"), f"with {settings}")
            subprocess.run([*place.control.split(), "start", "b"], check=True, env=environment())
            await until(lambda: place.states().get("b") == "UP", 20, "that b is in")
            code, said = await place.switch()
            require(code == 1 and "a and b serve: stop the one that is to be the new one" in said, said)


run()
