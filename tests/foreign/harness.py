"""The daemon as a child process, and the runner that prints one line a case.

Each file of cases says `@case` above its coroutines and ends with `run()`. A case starts its own
daemon, so that none inherits another's sessions; it is bounded by a time, fails by an exception,
and passes only if its daemon ended as it should.

Does not speak WebSocket bytes (raw.py does) and reads no metrics (scrape.py does). It starts
nothing but the daemon, and ends nothing but what it started, by process id.

Called by every `*.py` of this directory that has cases; `tests/run` calls those.
"""

import asyncio
import atexit
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

import websockets

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FOREIGN_BINARY", str(ROOT / "target" / "release" / "revolve"))
PATH = "/ws/chat/"

# The daemon names its address in its first lines, in either log format.
ADDRESS = re.compile(rb"127\.0\.0\.1:(\d{2,5})")

# Puts descriptors where systemd passes them, tells of them as it does, and becomes the daemon.
PASS_ON = """
import fcntl, os, sys
count = int(sys.argv[1])
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[2 : 2 + count]]
for at, fd in enumerate(fds):
    os.dup2(fd, 3 + at)
    os.close(fd)
os.environ |= {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""

_started = []  # every Daemon of the case that runs, for its report and for the last resort
_cases = []


class Failure(AssertionError):
    """What a case found is not what it wanted."""


def expect(found, wanted, what):
    """Fails unless `found == wanted`, and shows both."""
    if found != wanted:
        raise Failure(f"{what}: found {shown(found)}, wanted {shown(wanted)}")


def require(truth, what):
    """Fails unless `truth`."""
    if not truth:
        raise Failure(what)


def shown(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}… ({len(text)} characters)"


def note(text):
    """A measured figure: for the reader, not for the verdict."""
    print(f"       {text}", flush=True)


async def until(condition, seconds, what):
    """Waits for a condition that nobody announces; `condition` may be a coroutine function."""
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > give_up:
            raise Failure(f"{what}: not within {seconds} s")
        await asyncio.sleep(0.02)


async def some_at_a_time(times, job, width=20):
    """Runs `job(n)` for n below `times`, `width` of them at once; the first failure ends it."""
    numbers = iter(range(times))

    async def lane():
        for number in numbers:
            await job(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(lane())


def environment(extra=None):
    """Ours without REVOLVE_…, which would be options, and with `extra`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REVOLVE_")}
    return clean | (extra or {})


def command(*options, extra=None, seconds=10):
    """Runs the daemon as a command that ends by itself; returns (exit code, stdout, stderr)."""
    done = subprocess.run(
        [BINARY, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(extra),
        timeout=seconds,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Daemon:
    """One daemon on a port the kernel picked.

    `async with Daemon("--workers", "4") as daemon:` starts it, waits for its address, and at the
    end stops it with SIGTERM and wants exit code 0. A body that fails kills it instead.

    `stderr` says what becomes of its log once the address is known: "read" (default), "blocked"
    (a small pipe that nobody empties) or "closed". `before` is called in the child before it becomes
    the daemon. With `uds` it listens on that path instead. `passed` are sockets that it is passed from
    descriptor 3 on, and told of as systemd does. `binary` is another build than that under test.
    """

    def __init__(self, *options, extra=None, stderr="read", before=None, uds=None, passed=(), binary=None):
        self.options = (*(("--uds", str(uds)) if uds else ("--port", "0")), *options)
        self.uds = uds
        self.binary = binary
        self.extra = extra
        self.stderr = stderr
        self.before = before
        self.passed = [socket.fileno() for socket in passed]
        self.port = None
        self.listens = False
        self.log = bytearray()
        self.spawned = None
        self._known = threading.Event()
        self._stopped = False

    async def __aenter__(self):
        out, into = os.pipe()
        if self.stderr == "blocked":
            import fcntl

            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, 4096)
        self.spawned = time.perf_counter()
        wrapper = ()
        if self.passed:
            wrapper = (sys.executable, "-c", PASS_ON, str(len(self.passed)), *map(str, self.passed))
        self.process = subprocess.Popen(
            [*wrapper, self.binary or BINARY, *self.options],
            pass_fds=self.passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=into,
            env=environment(self.extra),
            preexec_fn=self.before,
        )
        os.close(into)
        _started.append(self)
        self._pipe = out
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not await asyncio.to_thread(self._known.wait, 10):
            self.kill()
            raise Failure(f"no address on stderr within 10 s; it said {bytes(self.log)!r}")
        if not self.listens:
            await self.ended(5)
            raise Failure(f"ended before it named an address: {bytes(self.log)!r}")
        return self

    def _read(self):
        while piece := os.read(self._pipe, 65536):
            self.log += piece
            if self.listens or not self._finds_address():
                continue
            self._known.set()
            if self.stderr == "blocked":
                return
            if self.stderr == "closed":
                break
        os.close(self._pipe)
        self._known.set()

    def _finds_address(self):
        if self.uds:
            self.listens = f"listening on unix:{self.uds}:".encode() in self.log
        elif found := ADDRESS.search(self.log):
            self.port = int(found.group(1))
            self.listens = True
        return self.listens

    async def __aexit__(self, kind, _error, _where):
        if kind is not None:
            self.kill()
        elif not self._stopped:
            await self.stop()

    def send_signal(self, number):
        """Sends a signal to this daemon, unless it has ended."""
        self.process.send_signal(number)

    async def stop(self, number=signal.SIGTERM, seconds=20):
        """SIGTERM, and the exit code must be 0."""
        self.send_signal(number)
        expect(await self.ended(seconds), 0, f"exit code after {signal.Signals(number).name}")

    async def ended(self, seconds):
        """Waits for the end by itself; returns the exit code, negative for a signal's number."""
        try:
            code = await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"process {self.process.pid} still runs after {seconds} s") from None
        self._stopped = True
        if self.stderr == "read":
            await asyncio.to_thread(self._reader.join, 5)
        for word in (b"panicked", b"panic at "):
            require(word not in self.log, "the daemon's log tells of a panic")
        return code

    def kill(self):
        """The last resort: for a failed case, where nothing is expected any more."""
        self._stopped = True
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def lines(self):
        """The log so far, whole lines only."""
        return bytes(self.log).decode(errors="replace").split("\n")[:-1]

    def bound_memory(self, more):
        """From now on the daemon may map so many bytes more (RLIMIT_AS): then its allocator says no,
        as it does in a container without overcommitment."""
        import resource

        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            mapped = next(line for line in status if line.startswith("VmSize:"))
        most = int(mapped.split()[1]) * 1024 + more
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (most, most))

    def memory(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise Failure("no VmRSS in the process's status")

    def url(self, query="", path=PATH):
        return f"ws://127.0.0.1:{self.port}{path}{query}"

    def connect(self, query="", path=PATH, **options):
        """A `websockets` client; its defaults are what users have, but for the proxy."""
        if self.uds:
            return websockets.unix_connect(str(self.uds), f"ws://localhost{path}{query}", **options)
        return websockets.connect(self.url(query, path), proxy=None, **options)


def case(function=None, *, seconds=30):
    """Marks a coroutine function as a case, bounded by `seconds`."""
    if function is None:
        return lambda inner: case(inner, seconds=seconds)
    _cases.append((function, seconds))
    return function


def _last_resort():
    for daemon in _started:
        daemon.kill()


def _overdue(name, seconds):
    # The case blocks its event loop, so no cancellation reaches it: say so, clean up, leave.
    print(f"  FAIL {name}: hangs, {seconds} s and more", flush=True)
    _last_resort()
    os._exit(1)


async def _bounded(function, seconds):
    try:
        async with asyncio.timeout(seconds):
            await function()
    except ExceptionGroup as group:
        # Of several tasks that failed together, one tells the story.
        while isinstance(group, ExceptionGroup):
            group = group.exceptions[0]
        raise group from None


def run():
    """Runs the cases of the file that calls, or those named as arguments; exits 0 or 1."""
    atexit.register(_last_resort)
    # sys.exit unwinds, so that the daemon is ended when somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [(f, s) for f, s in _cases if not sys.argv[1:] or f.__name__ in sys.argv[1:]]
    if not chosen:
        sys.exit(f"no such case; there are {', '.join(f.__name__ for f, _ in _cases)}")
    failed = 0
    for function, seconds in chosen:
        name = function.__name__
        _started.clear()
        began = time.monotonic()
        watchdog = threading.Timer(seconds + 15, _overdue, (name, seconds + 15))
        watchdog.daemon = True
        watchdog.start()
        try:
            asyncio.run(_bounded(function, seconds))
        except Exception as error:  # noqa: BLE001 — whatever ends a case is its verdict
            failed += 1
            what = f"not done within {seconds} s" if isinstance(error, TimeoutError) else error
            print(f"  FAIL {name} ({time.monotonic() - began:.2f} s): {what}", flush=True)
            if not isinstance(error, Failure):
                traceback.print_exception(error)
            for daemon in _started:
                print(f"       the end of the log of {' '.join(daemon.options)}:")
                for line in daemon.lines()[-12:]:
                    print(f"       | {line[:300]}")
            sys.stdout.flush()
        else:
            print(f"  PASS {name} ({time.monotonic() - began:.2f} s)", flush=True)
        finally:
            watchdog.cancel()
            _last_resort()
    print(f"  {len(chosen) - failed} of {len(chosen)} cases passed", flush=True)
    sys.exit(1 if failed else 0)
