"""Cases: the end. Readiness, 1001 to everyone, replies in flight, cut-offs, exit codes.

Not here: sessions across a restart, which this server does not have.
"""

import asyncio
import contextlib
import resource
import signal
import time

import websockets

from harness import Daemon, Failure, case, expect, note, require, run, some_at_a_time, until
from raw import BINARY, CLOSE, TEXT, Raw, close, frame, upgrade
from scrape import scrape


def summary(daemon):
    """The line that tells what the drain did, how many it closed and how many it cut."""
    found = [line for line in daemon.lines()[-6:] if "cut" in line and "closed" in line]
    require(found, f"no summary among the last lines: {daemon.lines()[-6:]}")
    return found[-1]


@case
async def without_connections_it_ends_at_once():
    for number in (signal.SIGTERM, signal.SIGINT):
        async with Daemon() as daemon:
            began = time.monotonic()
            await daemon.stop(number, seconds=5)
            summary(daemon)
            note(f"{signal.Signals(number).name}: {time.monotonic() - began:.3f} s")


@case
async def everyone_gets_1001_and_it_exits_0():
    async with Daemon("--workers", "4", "--no-access-log") as daemon:
        clients = await asyncio.gather(*(daemon.connect() for _ in range(300)))
        for client in clients[:100]:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply before the drain")
        stopping = asyncio.create_task(daemon.stop(seconds=10))
        for client in clients:
            try:
                raise Failure(f"a message after the signal: {await client.recv()!r}")
            except websockets.ConnectionClosed:
                expect(client.close_code, 1001, "close code")
        await stopping
        require("300" in summary(daemon), f"300 closed, but: {summary(daemon)}")


@case
async def readyz_says_503_on_a_connection_opened_before():
    async with Daemon("--timeout-graceful-shutdown", "3", "--workers", "2") as daemon:
        probes = [await Raw.connect(daemon.port) for _ in range(6)]
        for probe in probes:
            expect((await probe.ask("/readyz")).body, b'{"ready": true}', "readyz before")
        # One client that never echoes the close keeps the drain going.
        async with await Raw.open(daemon.port) as stubborn:
            daemon.send_signal(signal.SIGTERM)
            expect((await stubborn.frame()).close_code, 1001, "close code")
            answered = 0
            for probe in probes:
                answer = await probe.ask("/readyz")
                expect((answer.status, answer.body), (503, b'{"ready": false}'), "readyz")
                answered += 1
            expect(answered, len(probes), "probes that were answered")
            expect(await daemon.ended(20), 0, "exit code")


@case
async def nobody_new_gets_in():
    async with Daemon("--timeout-graceful-shutdown", "3", "--workers", "2") as daemon:
        async with await Raw.open(daemon.port) as stubborn:
            daemon.send_signal(signal.SIGTERM)
            expect((await stubborn.frame()).close_code, 1001, "close code")

            async def shut():
                try:
                    async with asyncio.timeout(2), daemon.connect():
                        raise Failure("an upgrade was let in after the 1001")
                except websockets.InvalidStatus as error:
                    expect(error.response.status_code, 503, "status while draining")
                    return False
                except OSError:
                    return True
                except (websockets.InvalidMessage, EOFError):
                    return False

            await until(shut, 2, "the listeners are closed")
            expect(await daemon.ended(20), 0, "exit code")


@case
async def replies_in_flight_arrive():
    async with Daemon("--workers", "2") as daemon:
        raws = [await Raw.open(daemon.port) for _ in range(20)]
        # All counted by the server, none read by the client: then the signal.
        for raw in raws:
            await raw.send(frame(TEXT, "hello") * 500)

        async def counted():
            return (await scrape(daemon)).value("ws_total_messages_total") == 10_000

        await until(counted, 10, "10,000 messages counted")
        daemon.send_signal(signal.SIGTERM)
        for raw in raws:
            for number in range(1, 501):
                expect(await raw.text(), f'{{"count": {number}}}', "a reply in flight")
            expect((await raw.frame()).close_code, 1001, "what follows the replies")
            await raw.send(close(1001))
            expect(await raw.at_end(), True, "the connection ends after the echo")
        expect(await daemon.ended(20), 0, "exit code")


@case
async def a_backlog_behind_a_slow_reader_arrives():
    # 32 echoes of 64 KiB for a client that reads nothing before the signal: most of them wait in
    # the server's own buffer, and must leave it before the close.
    async with Daemon("--app", "echo", "--max-send-buffer", "4194304") as daemon:
        raw = await Raw.connect(daemon.port, receive_buffer=8192)
        async with raw:
            await raw.send(upgrade())
            await raw.answer()
            raw.writer.transport.pause_reading()
            payloads = [bytes([n]) * 65536 for n in range(32)]
            for payload in payloads:
                await raw.send(frame(BINARY, payload))

            async def counted():
                return (await scrape(daemon)).value("ws_total_messages_total") == 32

            await until(counted, 10, "32 messages taken in")
            daemon.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            raw.writer.transport.resume_reading()
            for payload in payloads:
                got = await raw.frame()
                size = len(got.payload)
                require(got.payload == payload, f"an echo in flight: {got.opcode}, {size} bytes")
            expect((await raw.frame()).close_code, 1001, "what follows the echoes")
            await raw.send(close(1001))
            expect(await daemon.ended(20), 0, "exit code")


@case
async def a_flood_ends_in_order():
    # Clients that never stop sending: replies without a gap, then 1001, and no hanging.
    async with Daemon("--workers", "2", "--timeout-graceful-shutdown", "8") as daemon:
        clients = await asyncio.gather(*(daemon.connect() for _ in range(10)))

        async def flood(client):
            try:
                while True:
                    await client.send("hello")
                    # A send that finds room in the buffer does not yield by itself.
                    await asyncio.sleep(0)
            except websockets.ConnectionClosed:
                pass

        async def read(client):
            number = 0
            try:
                while True:
                    number += 1
                    expect(await client.recv(), f'{{"count": {number}}}', "a reply of the flood")
            except websockets.ConnectionClosed:
                expect(client.close_code, 1001, "close code")

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(flood(client))
                group.create_task(read(client))
            await asyncio.sleep(0.5)
            daemon.send_signal(signal.SIGTERM)
        expect(await daemon.ended(20), 0, "exit code")


@case
async def who_never_echoes_is_cut_at_the_timeout():
    async with Daemon("--timeout-graceful-shutdown", "1", "--workers", "2") as daemon:
        stubborn = [await Raw.open(daemon.port) for _ in range(5)]
        polite = await daemon.connect()
        began = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        for raw in stubborn:
            expect((await raw.frame()).close_code, 1001, "close code")
        await polite.wait_closed()
        expect(polite.close_code, 1001, "close code of the polite one")
        expect(await daemon.ended(8), 0, "exit code")
        took = time.monotonic() - began
        require(took > 0.8, f"ended after {took:.2f} s: nobody had time to echo")
        note(f"{took:.2f} s with a timeout of 1 s; {summary(daemon)}")
        require("5" in summary(daemon), f"5 were cut, but: {summary(daemon)}")


@case
async def who_does_not_even_read_is_cut():
    async with Daemon("--app", "echo", "--timeout-graceful-shutdown", "1") as daemon:
        raw = await Raw.connect(daemon.port, receive_buffer=4096)
        async with raw:
            await raw.send(upgrade())
            await raw.answer()
            raw.writer.transport.pause_reading()
            raw.writer.write(frame(BINARY, bytes(1 << 20)) * 6)
            await asyncio.sleep(0.5)
            daemon.send_signal(signal.SIGTERM)
            expect(await daemon.ended(8), 0, "exit code")


@case(seconds=60)
async def nobody_is_waited_for_who_has_left():
    # They close, and the signal comes at once: the drain is over when the last one is gone, and not
    # when its time is up.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for workers, count in (("1", 900), ("2", 2000), ("4", 2000)):
        options = ("--workers", workers, "--timeout-graceful-shutdown", "60")
        async with Daemon(*options, "--no-access-log") as daemon:
            clients = []

            async def open_one(_, clients=clients, daemon=daemon):
                clients.append(await Raw.open(daemon.port))

            await some_at_a_time(min(count, hard - 200), open_one)
            for client in clients:
                client.writer.write(close(1000))
            daemon.send_signal(signal.SIGTERM)
            began = time.monotonic()
            for client in clients:
                client.abort()
            expect(await daemon.ended(4), 0, "exit code")
            note(f"{len(clients)} clients, {workers} reactors: {time.monotonic() - began:.2f} s")


@case(seconds=90)
async def a_storm_of_hand_overs_is_not_waited_for():
    # Upgrades for sessions of other reactors, in mid-flight when the signal comes; then all are gone.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _ in range(4):
        options = ("--workers", "4", "--timeout-graceful-shutdown", "60", "--no-access-log")
        async with Daemon(*options) as daemon:
            storm = []

            async def one(number, storm=storm, daemon=daemon):
                client = await Raw.connect(daemon.port)
                storm.append(client)
                client.writer.write(upgrade(f"?session_id=s-{number}"))
                if number == 1000:
                    daemon.send_signal(signal.SIGTERM)

            with contextlib.suppress(ExceptionGroup):
                await some_at_a_time(min(2000, hard - 200), one, width=100)
            for client in storm:
                client.abort()
            began = time.monotonic()
            expect(await daemon.ended(4), 0, "exit code")
            note(f"{len(storm)} clients: {time.monotonic() - began:.2f} s")


@case
async def half_made_requests_do_not_hold_it():
    async with Daemon("--timeout-graceful-shutdown", "5") as daemon:
        async with await Raw.connect(daemon.port) as silent, await Raw.connect(daemon.port) as half:
            await half.send(b"GET /ws/chat/ HTTP/1.1\r\nHost: a\r\n")
            await asyncio.sleep(0.2)
            daemon.send_signal(signal.SIGTERM)
            expect(await daemon.ended(12), 0, "exit code")
            require(not silent.writer.is_closing(), "this side did not close it")


@case
async def a_second_signal_ends_it_at_once():
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)):
        async with Daemon("--timeout-graceful-shutdown", "60") as daemon:
            async with await Raw.open(daemon.port) as stubborn:
                began = time.monotonic()
                daemon.send_signal(first)
                expect((await stubborn.frame()).close_code, 1001, "close code")
                # Two within 50 ms count as one: a supervisor may signal process and group.
                await asyncio.sleep(0.3)
                daemon.send_signal(second)
                code = await daemon.ended(5)
                require(code != 0, "exit code after a second signal is 0")
                took = time.monotonic() - began
                note(f"exit code {code}, {took:.2f} s after the first signal")


@case
async def the_same_signal_twice_in_one_stroke_still_drains():
    # As GNU timeout sends it: once to the process, once to its group.
    async with Daemon() as daemon, daemon.connect() as client:
        await client.send("hello")
        expect(await client.recv(), '{"count": 1}', "reply before the drain")
        daemon.send_signal(signal.SIGTERM)
        daemon.send_signal(signal.SIGTERM)
        await client.wait_closed()
        expect(client.close_code, 1001, "close code")
        expect(await daemon.ended(10), 0, "exit code")


@case
async def a_close_of_the_clients_own_is_not_disturbed():
    # A client whose own close is under way when the signal comes is closed by its own code.
    async with Daemon() as daemon, await Raw.open(daemon.port) as raw:
        await raw.send(frame(TEXT, "hello") + close(1000, "done"))
        daemon.send_signal(signal.SIGTERM)
        got = await raw.frame()
        if got.opcode == TEXT:
            got = await raw.frame()
        expect(got.opcode, CLOSE, "the frame that ends it")
        require(got.close_code in (1000, 1001), f"close code {got.close_code}")
        expect(await daemon.ended(20), 0, "exit code")


run()
