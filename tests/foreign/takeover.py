"""Cases: one live connection a session. The newer wins, the older hears why and counts no more.

Not here: reconnects after the older one has gone (resume.py).
"""

import asyncio
import re

import websockets

from harness import Daemon, Failure, case, expect, require, run, some_at_a_time, until
from scrape import scrape


async def taken_over(client):
    """Reads until the close, which must tell of the takeover; returns what came before it."""
    before = []
    try:
        while True:
            before.append(await client.recv())
    except websockets.ConnectionClosed:
        expect(client.close_code, 4001, "close code of the older connection")
        expect(client.close_reason, "session taken over", "its close reason")
    return before


@case
async def the_newer_connection_wins():
    async with Daemon() as daemon:
        async with daemon.connect("?session_id=one") as older:
            for number in (1, 2):
                await older.send("hello")
                expect(await older.recv(), f'{{"count": {number}}}', "reply to the older")
            async with daemon.connect("?session_id=one") as newer:
                expect(newer.response.headers["X-Session-Resumed"], "true", "X-Session-Resumed")
                expect(newer.response.headers["X-Session-Count"], "2", "X-Session-Count")
                expect(await taken_over(older), [], "messages to the older before its close")
                await newer.send("hello")
                expect(await newer.recv(), '{"count": 3}', "reply to the newer")
        found = await scrape(daemon)
        moved = [name for name in found.names() if "takeover" in name]
        require(moved, "no metric counts takeovers")
        require(any(found.value(name) == 1 for name in moved), f"none of {moved} counted it")


@case(seconds=60)
async def on_every_reactor():
    async with Daemon("--workers", "4", "--no-access-log") as daemon:

        async def one(number):
            identity = f"moved-{number}"
            older = await daemon.connect(f"?session_id={identity}")
            await older.send("hello")
            expect(await older.recv(), '{"count": 1}', "reply to the older")
            for count in range(2, 7):
                newer = await daemon.connect(f"?session_id={identity}")
                expect(await taken_over(older), [], "messages to the older before its close")
                await newer.send("hello")
                expect(await newer.recv(), f'{{"count": {count}}}', "reply to the newer")
                older = newer
            await older.close()

        await some_at_a_time(40, one)


@case(seconds=60)
async def a_flood_from_the_older_never_counts_after_it():
    async with Daemon("--workers", "4", "--no-access-log") as daemon:
        for number in range(10):
            identity = f"flood-{number}"
            older = await daemon.connect(f"?session_id={identity}")

            async def flood():
                try:
                    while True:
                        await older.send("hello")
                        # A send that finds room in the buffer does not yield by itself.
                        await asyncio.sleep(0)
                except websockets.ConnectionClosed:
                    pass

            flooding = asyncio.create_task(flood())
            reading = asyncio.create_task(taken_over(older))
            await asyncio.sleep(0.05)
            async with daemon.connect(f"?session_id={identity}&hello=1") as newer:
                told = await newer.recv()
                start = int(newer.response.headers["X-Session-Count"])
                hello = f'{{"session_id": "{identity}", "count": {start}, "resumed": true}}'
                expect(told, hello, "hello to the newer")
                for count in range(start + 1, start + 51):
                    await newer.send("mine")
                    expect(await newer.recv(), f'{{"count": {count}}}', "reply to the newer")
            replies = await reading
            await flooding
            expect(
                replies,
                [f'{{"count": {n}}}' for n in range(1, len(replies) + 1)],
                "replies to the older",
            )
            # Every reply the older got was counted before the newer was told its start.
            require(len(replies) <= start, f"{len(replies)} replies, but the start was {start}")


@case(seconds=60)
async def of_twenty_at_once_one_stays():
    async with Daemon("--workers", "4", "--no-access-log") as daemon:
        for number in range(5):
            identity = f"crowd-{number}"
            clients = await asyncio.gather(
                *(daemon.connect(f"?session_id={identity}") for _ in range(20))
            )
            closed = lambda: [c for c in clients if c.state is not websockets.State.OPEN]
            await until(lambda: len(closed()) == 19, 10, "19 of 20 are closed")
            for client in closed():
                await taken_over(client)
            (left,) = [client for client in clients if client not in closed()]
            await left.send("alone")
            answer = await left.recv()
            if not re.fullmatch(r'\{"count": 1\}', answer):
                raise Failure(f"the one that stayed was answered {answer!r}")
            await left.close()


run()
