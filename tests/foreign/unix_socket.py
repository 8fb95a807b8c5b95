"""Cases: the daemon on a Unix socket. Its clients, its file, its log, and a start after `kill -9`.

Not here: what a shard does with such connections (tests/simulation), and limits (tests/server).
"""

import array
import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import tempfile

from harness import Daemon, case, command, expect, require, run, until

HOME = pathlib.Path(tempfile.mkdtemp(prefix="revolve-"))
SOCKET = HOME / "s"


async def request(path, fields="", where=SOCKET):
    """A plain request over the socket: status line and body."""
    reader, writer = await asyncio.open_unix_connection(where)
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
    writer.write(head.encode())
    answer = (await reader.read()).decode()
    writer.close()
    status, _, rest = answer.partition("\r\n")
    return status.split()[1], rest.partition("\r\n\r\n")[2]


def refused(path, *words):
    code, out, err = command("--uds", str(path))
    expect((code, out), (1, ""), f"exit code and stdout ({err!r})")
    expect(len(err.splitlines()), 1, f"lines on stderr ({err!r})")
    for word in (f"cannot listen on unix:{path}: ", *words):
        require(word in err, f"{word!r} is not in {err!r}")


@case
async def a_client_counts_and_resumes_and_the_file_goes():
    async with Daemon("--workers", "3", uds=SOCKET) as daemon:
        for count in range(1, 10):
            async with daemon.connect("?session_id=unix") as client:
                await client.send("hello")
                expect(json.loads(await client.recv()), {"count": count}, "reply")
        clients = [await daemon.connect() for _ in range(30)]
        for client in clients:
            await client.send("x" * 300_000)
        for client in clients:
            expect(await client.recv(), '{"count": 1}', "reply")
        _, page = await request("/metrics")
        held = [line for line in page.splitlines() if line.startswith("revolve_websockets{")]
        expect(len(held), 3, "reactors")
        for line in held:
            require(int(float(line.split()[-1])) >= 9, f"each reactor has its share: {held}")
        expect((await request("/healthz"))[0], "200", "/healthz")
        expect((await request("/"))[0], "200", "the live page")
        expect((await request("/", "X-Real-IP: 192.0.2.7\r\n"))[0], "403", "the page for another")
        daemon.send_signal(signal.SIGTERM)
        for client in clients:
            await client.wait_closed()
            expect(client.close_code, 1001, "close code")
        expect(await daemon.ended(20), 0, "exit code")
        require(not SOCKET.exists(), "the file is gone")


@case
async def the_log_says_where_it_listens_and_who_came():
    async with Daemon("--log-format", "json", uds=SOCKET) as daemon:
        async with daemon.connect():
            await until(
                lambda: any("WebSocket accepted" in line for line in daemon.lines()), 10, "a line"
            )
    lines = [json.loads(line) for line in daemon.lines()]
    opened = [line for line in lines if line.get("message") == "WebSocket accepted"]
    expect([line["peer"] for line in opened], ["unix:"], "peer")
    told = [line["message"] for line in lines]
    require(
        f"listening on unix:{SOCKET}: WebSockets at /ws/chat/ (also /healthz, /readyz, /metrics)"
        in told,
        f"where it listens: {told}",
    )
    require(f"live page: / on unix:{SOCKET} (for this machine alone)" in told, f"the page: {told}")


@case
async def after_kill_9_it_starts_again_and_beside_a_live_one_it_does_not():
    async with Daemon(uds=SOCKET) as daemon:
        async with daemon.connect() as client:
            daemon.send_signal(signal.SIGKILL)
            expect(await daemon.ended(10), -signal.SIGKILL, "exit code")
            await client.wait_closed()
    require(SOCKET.exists(), "kill -9 leaves the file")
    async with Daemon(uds=SOCKET) as daemon:
        refused(SOCKET, "another process listens there", "--uds")
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply of the one that was there")
        # Somebody replaces its file: what is there at the end is not its own.
        SOCKET.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(SOCKET))
            other.listen()
            await daemon.stop()
            require(SOCKET.exists(), "the other one's file stays")
    SOCKET.unlink()


@case
async def what_cannot_be_had_is_one_line():
    refused(HOME / "none" / "s", "no such directory", "--uds")
    plain = HOME / "plain"
    plain.write_text("kept")
    refused(plain, "no socket, and stays", "--uds")
    expect(plain.read_text(), "kept", "the file")
    refused(plain / "s", "a part of it is no directory", "--uds")
    plain.unlink()
    # To open a FIFO would wait for somebody who writes to it.
    fifo = HOME / "fifo"
    os.mkfifo(fifo)
    refused(fifo / "s", "a part of it is no directory", "--uds")
    fifo.unlink()
    # One line, whatever is in the path.
    code, out, err = command("--uds", "/none\n/\x1b[2J")
    expect((code, out), (1, ""), f"exit code and stdout ({err!r})")
    require("unix:/none\\n/\\u{1b}[2J: there is no such directory" in err, f"escaped: {err!r}")
    for path in ("", "/" + "a" * 107):
        code, out, err = command("--uds", path)
        expect((code, out), (2, ""), f"exit code and stdout ({err!r})")
        require("is not a path of 1 to 107 bytes" in err, f"it says what is allowed: {err!r}")
    longest = HOME / ("a" * (107 - len(str(HOME)) - 1))
    async with Daemon(uds=longest) as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply")


@case
async def the_umask_decides_who_may_connect():
    for umask, mode in ((0o077, 0o700), (0o007, 0o770)):
        async with Daemon(uds=SOCKET, before=lambda: os.umask(umask)):
            found = SOCKET.stat()
            require(stat.S_ISSOCK(found.st_mode), "a socket")
            expect(stat.S_IMODE(found.st_mode), mode, f"mode under umask {umask:o}")


@case
async def a_relative_path_and_host_and_port_beside_it():
    here = os.getcwd()
    os.chdir(HOME)
    try:
        async with Daemon("--host", "192.0.2.1", "--port", "1", uds="relative"):
            expect((await request("/healthz", where="relative"))[0], "200", "/healthz")
    finally:
        os.chdir(here)
    require(not (HOME / "relative").exists(), "the file is gone")


@case
async def descriptors_that_a_peer_passes_are_not_kept_and_nothing_behind_them_is_lost():
    # A read stops behind them, so what follows is found at the next edge: our ping at the latest.
    options = ("--workers", "1", "--ws-ping-interval", "0.2", "--app", "echo")
    async with Daemon(*options, uds=SOCKET) as daemon:
        async with daemon.connect() as client:
            raw = client.transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(raw.fileno())) as stream, open(os.devnull) as null:
                before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
                daemon.send_signal(signal.SIGSTOP)
                passed = array.array("i", [null.fileno()] * 50)
                text = b"\x81\x82\0\0\0\0ab"
                stream.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
                stream.sendmsg([text])
                daemon.send_signal(signal.SIGCONT)
            for _ in range(2):
                expect(await asyncio.wait_for(client.recv(), 5), "ab", "echo")
            after = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
            expect(after, before, "descriptors of the daemon")


try:
    run()
finally:
    shutil.rmtree(HOME, ignore_errors=True)
