"""Cases: no memory to be had. What cannot be held ends its own connection, and nobody else's.

The daemon's address space is bounded once it runs.

Not here: what inflates beyond it (deflate.py), how much the daemon takes at most (tests/hostile), and
the kernel's own way to end a process.
"""

import asyncio
import json

from harness import Daemon, case, expect, note, require, run
from raw import BINARY, Raw, frame
from scrape import scrape

MIB = 1 << 20


class Bystanders:
    """Clients of every reactor, who talk all the while; each of their counts must come."""

    def __init__(self, daemon, count=8):
        self.daemon, self.count, self.said = daemon, count, 0

    async def __aenter__(self):
        self.clients = [
            await self.daemon.connect(f"?session_id=bystander-{n}") for n in range(self.count)
        ]
        return self

    async def __aexit__(self, *_):
        for client in self.clients:
            await client.close()

    async def talk(self):
        self.said += 1
        for client in self.clients:
            await client.send("still here")
        for client in self.clients:
            answer = json.loads(await asyncio.wait_for(client.recv(), 10))
            expect(answer, {"count": self.said}, "a bystander's count")


async def outcome(raw):
    """What an attacker hears last: "count", a close code, or "lost"."""
    try:
        answer = await asyncio.wait_for(raw.frame(), 20)
    except (asyncio.IncompleteReadError, ConnectionError):
        return "lost"
    return answer.close_code if answer.opcode == 0x8 else "count"


@case(seconds=90)
async def a_message_that_cannot_be_held_gets_1013_and_nobody_else():
    async with Daemon("--workers", "2", "--ws-ping-interval", "0") as daemon:
        async with Bystanders(daemon) as bystanders:
            await bystanders.talk()
            daemon.bound_memory(40 * MIB)
            message = frame(BINARY, bytes(16 * MIB))
            for _ in range(3):
                raws = [await Raw.open(daemon.port) for _ in range(8)]
                # All but the end of it, so that they are in memory together.
                sending = [asyncio.create_task(raw.send(message[:-1])) for raw in raws]
                for _ in range(10):
                    await bystanders.talk()
                await asyncio.gather(*sending, return_exceptions=True)
                await asyncio.gather(
                    *(raw.send(message[-1:]) for raw in raws), return_exceptions=True
                )
                heard = await asyncio.gather(*(outcome(raw) for raw in raws))
                note(f"8 of 16 MiB in 40 MiB: {heard.count('count')} counted, {heard.count(1013)} told 1013")
                require(set(heard) <= {"count", 1013, "lost"}, f"they heard {heard}")
                require(1013 in heard, f"nobody was told 1013: {heard}")
                for raw in raws:
                    raw.abort()
                await bystanders.talk()
            # It is as 1013 says: later there is room.
            async with daemon.connect() as client:
                await client.send(bytes(16 * MIB))
                expect(await client.recv(), '{"count": 1}', "the same message, alone")
            refused = (await scrape(daemon)).value("revolve_out_of_memory_total")
            require(refused >= 3, f"revolve_out_of_memory_total is {refused}")
            warned = [line for line in daemon.lines() if "out of memory" in line]
            require(1 <= len(warned) <= 2, f"{len(warned)} lines about it")
            require("--ws-max-size" in warned[0], f"the line says what to change: {warned[0]}")


@case(seconds=90)
async def a_backlog_that_cannot_be_held_ends_its_connection_and_nobody_elses():
    options = ("--workers", "2", "--ws-ping-interval", "0", "--app", "echo")
    async with Daemon(*options, "--max-send-buffer", str(1 << 30)) as daemon:
        others = [await daemon.connect() for _ in range(8)]

        async def talk():
            for number, client in enumerate(others):
                await client.send(f"{number}")
            for number, client in enumerate(others):
                echoed = await asyncio.wait_for(client.recv(), 10)
                expect(echoed, f"{number}", "another one's echo")

        await talk()
        daemon.bound_memory(60 * MIB)
        message = frame(BINARY, bytes(MIB))
        deaf = [await Raw.open(daemon.port) for _ in range(6)]

        async def feed(raw):
            """Sends and never reads; how many messages went in before it was over."""
            for number in range(300):
                try:
                    await asyncio.wait_for(raw.send(message), 15)
                except ConnectionError:
                    return number
            return None

        feeding = [asyncio.create_task(feed(raw)) for raw in deaf]
        while not all(task.done() for task in feeding):
            await talk()
            await asyncio.sleep(0.05)
        fed = [task.result() for task in feeding]
        note(f"MiB taken of each before it ended: {fed}")
        require(any(number is not None for number in fed), "nobody ran out of memory")
        for raw in deaf:
            raw.abort()
        await talk()
        lost = (await scrape(daemon)).value("revolve_out_of_memory_total")
        require(lost >= 1, f"revolve_out_of_memory_total is {lost}")
        for client in others:
            await client.close()


@case(seconds=60)
async def a_long_reply_that_cannot_be_kept_ends_its_connection_and_nobody_elses():
    # The message fits; its echo, of which the client takes nothing at first, does not fit besides.
    size = 64 * MIB
    options = ("--workers", "1", "--ws-ping-interval", "0", "--app", "echo")
    async with Daemon(*options, "--ws-max-size", str(size)) as daemon:
        async with daemon.connect() as other:
            daemon.bound_memory(80 * MIB)
            async with await Raw.open(daemon.port) as raw:
                await raw.send(frame(BINARY, bytes(size)))
                heard = 0
                try:
                    while piece := await asyncio.wait_for(raw.reader.read(MIB), 15):
                        heard += len(piece)
                except ConnectionError:
                    pass
                # Whatever has left was the frame's beginning: so nothing may follow it, no Close either.
                require(heard < size, f"all of it came, {heard} bytes: this was too easy")
            await other.send("still here")
            expect(await other.recv(), "still here", "another one's echo")
            lost = (await scrape(daemon)).value("revolve_out_of_memory_total")
            expect(lost, 1, "revolve_out_of_memory_total")


run()
