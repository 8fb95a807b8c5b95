"""Cases: the log on stderr. Its fields, its secrets, and that it never holds the server up.

Not here: the summary line of a drain (drain.py), usage errors (command_line.py).
"""

import asyncio
import datetime
import json
import socket
import subprocess

from harness import (
    BINARY, Daemon, case, environment, expect, note, require, run, some_at_a_time, until,
)
from raw import Raw
from scrape import scrape

IDENTITY = "a-secret-identity-0123456789"


def parsed(daemon):
    """Every line as JSON with its three constant fields; fails on any other line."""
    records = []
    for line in daemon.lines():
        try:
            record = json.loads(line)
        except ValueError as error:
            raise AssertionError(f"not JSON: {line!r}") from error
        for field in ("time", "level", "message"):
            require(field in record, f"no {field} in {line}")
        when = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
        now = datetime.datetime.now(datetime.timezone.utc)
        require(abs((now - when).total_seconds()) < 60, f"{record['time']} is not now")
        records.append(record)
    return records


def access(daemon):
    """The records that belong to one connection."""
    return [record for record in parsed(daemon) if "connection" in record]


@case
async def json_lines_with_the_named_fields():
    async with Daemon("--log-format", "json", "--workers", "2") as daemon:
        async with daemon.connect(f"?session_id={IDENTITY}") as client:
            await client.send("hello")
            await client.recv()
        await daemon.stop()
        records = access(daemon)
        require(len(records) >= 2, f"an open and a close were due, found {records}")
        for record in records:
            for field in ("connection", "session", "reactor"):
                require(field in record, f"no {field} in {record}")
            expect(record["session"], IDENTITY[:8], "session")
        opened, closed = records[0], records[-1]
        # Peer, path and outcome at the open; duration, messages, bytes, code and side at the close.
        for record, words in (
            (opened, ("peer", "path", "resumed")),
            (closed, ("seconds", "messages", "bytes_in", "bytes_out", "code", "side")),
        ):
            names = " ".join(record)
            for word in words:
                require(word in names, f"nothing about {word} in {record}")
        note(json.dumps(closed))


@case
async def no_session_id_is_ever_logged_whole():
    for form in ("json", "text"):
        async with Daemon("--log-format", form, "--log-level", "trace") as daemon:
            issued = []
            for query in (f"?session_id={IDENTITY}", f"?session_id={IDENTITY}", "", "?hello=1"):
                async with daemon.connect(query) as client:
                    issued.append(client.response.headers["X-Session-Id"])
                    await client.send("hello")
                    await client.recv()
            await daemon.stop()
            text = bytes(daemon.log).decode()
            for identity in (IDENTITY, *issued):
                require(identity not in text, f"{form}: the id {identity} is in the log")
            require(IDENTITY[:8] in text, f"{form}: the first 8 characters are not in the log")


@case
async def of_a_short_id_at_most_half_is_logged():
    for identity, shown in (("~", ""), ("q~", "q"), ("q~q~q~q~", "q~q~"), ("q~" * 9, "q~" * 4)):
        for form in ("json", "text"):
            async with Daemon("--log-format", form, "--log-level", "trace") as daemon:
                async with daemon.connect(f"?session_id={identity}") as client:
                    await client.send("hello")
                    await client.recv()
                await daemon.stop()
                require(identity not in bytes(daemon.log).decode(), f"{identity} is in the log")
                if form == "json":
                    found = [record["session"] for record in access(daemon) if "session" in record]
                    require(len(found) >= 2, "an open and a close were due")
                    expect(set(found), {shown}, f"what is shown of {identity}")


@case
async def text_lines_name_the_connection_too():
    async with Daemon() as daemon:
        async with daemon.connect(f"?session_id={IDENTITY}") as client:
            await client.send("hello")
            await client.recv()
        await daemon.stop()
        lines = [line for line in daemon.lines() if IDENTITY[:8] in line]
        require(len(lines) >= 2, f"an open and a close were due, found {lines}")
        require("1000" in lines[-1], f"no close code in {lines[-1]}")
        for line in daemon.lines():
            note(line)


@case
async def trace_tells_each_turn():
    async with Daemon("--log-level", "trace", "--workers", "1", "--heartbeat", "0") as daemon:
        async with daemon.connect(f"?session_id={IDENTITY}") as client:
            for _ in range(3):
                await client.send("hello")
                await client.recv()
        await daemon.stop()
        turns = [line for line in daemon.lines() if "[revolve::turn]" in line]
        for line in turns:
            note(line)
        for beat in (
            "accepted from 127.0.0.1:",
            "upgrade: new session, count 0",
            "readable: 11 B read; text 5 B → count 3; 14 B in one write; blocked",
            "closed by the peer: 1000",
            "told to go away: the drain begins",
        ):
            expect(sum(beat in line for line in turns), 1, f"lines with {beat!r}")
        # Only revolve itself speaks at this level: the crates below it would drown it out.
        others = [line for line in daemon.lines() if " TRACE " in line and line not in turns]
        require(not others, f"traced by others: {others[:3]}")


@case
async def no_access_log_means_none():
    async with Daemon("--no-access-log") as daemon:
        async with daemon.connect(f"?session_id={IDENTITY}") as client:
            await client.send("hello")
            await client.recv()
        await daemon.stop()
        text = bytes(daemon.log).decode()
        require(IDENTITY[:8] not in text, f"an access line: {text}")


@case
async def what_peers_send_is_escaped():
    nasty = [
        b"GET /ws/chat/?session_id=ok&x=\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x00\x7f\x9b HTTP/1.1\r\nHost: a\r\n\r\n",
        b'GET /"quoted"\\ HTTP/1.1\r\nHost: a\r\n\r\n',
        b"GET /%0aINFO%20forged HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\xff\xfe\x1b]0;title\x07\r\n\r\n",
        "GET /ws/chat/?n=\u202e HTTP/1.1\r\nHost: \u2028a\r\n\r\n".encode(),
    ]
    for form in ("json", "text"):
        async with Daemon("--log-format", form, "--log-level", "trace") as daemon:
            for request in nasty:
                async with await Raw.connect(daemon.port) as raw:
                    await raw.send(request)
                    await asyncio.wait_for(raw.reader.read(4096), 12)
            async with daemon.connect('?session_id=fine&y="%1b[0m\\') as client:
                await client.close(1000, 'a "reason"\n\x1b[31mwith colours \u202e')
            await daemon.stop()
            bad = {byte for byte in daemon.log if (byte < 0x20 and byte != 0x0A) or byte == 0x7F}
            expect(bad, set(), f"control bytes in the {form} log")
            text = bytes(daemon.log).decode()
            forged = [c for c in text if "\x80" <= c <= "\x9f" or c in "\u2028\u2029\u202e"]
            expect(forged, [], f"control characters in the {form} log")
            require("\nINFO forged" not in text, "a forged line")
            if form == "json":
                parsed(daemon)


@case(seconds=60)
async def a_blocked_stderr_stalls_nobody():
    async with Daemon("--workers", "2", stderr="blocked") as daemon:

        async def visit(_):
            async with daemon.connect() as client:
                await client.send("hello")
                expect(await asyncio.wait_for(client.recv(), 10), '{"count": 1}', "reply")

        await some_at_a_time(6000, visit, 50)
        async with await Raw.connect(daemon.port) as raw:
            expect((await raw.ask("/healthz")).status, 200, "healthz")
        # 12,000 access lines fit neither a pipe of 4 KiB nor any queue with a sane bound.
        found = await scrape(daemon)
        names = [name for name in found.names() if "log" in name and "drop" in name]
        require(names, "no metric counts dropped log lines")
        dropped = sum(found.value(name) for name in names)
        note(f"{dropped:.0f} lines dropped; {daemon.memory() / 1024:.0f} KiB resident")
        require(dropped > 0, "no line was dropped, so this case proved nothing")
        await daemon.stop(seconds=20)


@case(seconds=60)
async def a_closed_stderr_kills_nobody():
    async with Daemon("--workers", "2", stderr="closed") as daemon:

        async def visit(_):
            async with daemon.connect() as client:
                await client.send("hello")
                expect(await asyncio.wait_for(client.recv(), 10), '{"count": 1}', "reply")

        await some_at_a_time(500, visit, 50)
        await daemon.stop(seconds=20)


@case
async def no_stderr_at_all_from_the_start():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", BINARY, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment(),
    )
    try:

        async def answers():
            try:
                async with await Raw.connect(port) as raw:
                    return (await raw.ask("/healthz")).status == 200
            except OSError:
                return False

        await until(answers, 10, "healthz answers")
        process.terminate()
        expect(await asyncio.to_thread(process.wait, 20), 0, "exit code")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


run()
