"""Cases: the heartbeat that every open connection gets.

Not here: protocol pings (ping.py).
"""

import asyncio
import datetime
import json
import re

from harness import Daemon, case, expect, require, run

STAMP = re.compile(r'\{"ts": "(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})"\}')


def moment(message):
    """The time in a heartbeat; fails on any other message."""
    require(isinstance(message, str), f"a heartbeat is text, not {message!r}")
    found = STAMP.fullmatch(message)
    require(found, f"not a heartbeat: {message!r}")
    json.loads(message)
    stamp = datetime.datetime.fromisoformat(found.group(1))
    return stamp.replace(tzinfo=datetime.timezone.utc)


@case
async def it_comes_every_second_in_utc_with_six_digits():
    async with Daemon("--heartbeat", "1") as daemon, daemon.connect() as client:
        before = None
        for _ in range(3):
            ts = moment(await asyncio.wait_for(client.recv(), 10))
            now = datetime.datetime.now(datetime.timezone.utc)
            require(abs((now - ts).total_seconds()) < 5, f"{ts} is not near {now}")
            if before:
                gap = (ts - before).total_seconds()
                require(0.5 < gap < 5, f"{gap} s between two heartbeats of one second")
            before = ts


@case
async def every_connection_gets_it_whatever_its_reactor():
    async with Daemon("--heartbeat", "1", "--workers", "4") as daemon:
        clients = await asyncio.gather(*(daemon.connect() for _ in range(200)))
        for _ in range(2):
            beats = await asyncio.gather(*(client.recv() for client in clients))
            for beat in beats:
                moment(beat)
        await asyncio.gather(*(client.close() for client in clients))


@case
async def it_is_not_counted_and_does_not_mix_with_replies():
    async with Daemon("--heartbeat", "1") as daemon, daemon.connect() as client:
        beats = 0
        for number in range(1, 31):
            await client.send("tick")
            while (message := await client.recv()) != f'{{"count": {number}}}':
                moment(message)
                beats += 1
            await asyncio.sleep(0.1)
        require(beats >= 2, f"{beats} heartbeats in three seconds")


@case
async def by_default_none_comes_at_once():
    async with Daemon() as daemon, daemon.connect() as client:
        try:
            message = await asyncio.wait_for(client.recv(), 2)
        except TimeoutError:
            return
        expect(message, None, "a message that nobody asked for")


run()
