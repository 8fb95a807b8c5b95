"""Cases: keep-alive pings, and what becomes of a client that never answers them.

Not here: the heartbeat message (heartbeat.py).
"""

import asyncio
import time

from harness import Daemon, case, expect, require, run
from raw import CLOSE, PING, PONG, TEXT, Raw, frame


@case
async def pings_arrive_at_the_interval_and_pongs_keep_the_connection():
    async with Daemon("--ws-ping-interval", "1", "--ws-ping-timeout", "2") as daemon:
        async with await Raw.open(daemon.port) as raw:
            came = []
            for _ in range(5):
                got = await asyncio.wait_for(raw.frame(), 10)
                expect(got.opcode, PING, "the frame of an idle connection")
                require(len(got.payload) <= 125, "a ping's payload is at most 125 bytes")
                came.append(time.monotonic())
                await raw.send(frame(PONG, got.payload))
            gaps = [later - earlier for earlier, later in zip(came, came[1:])]
            require(all(0.4 < gap < 5 for gap in gaps), f"gaps of {gaps} s at an interval of 1 s")
            await raw.send(frame(TEXT, "still here"))
            expect(await raw.text(), '{"count": 1}', "reply after five pings")


@case
async def a_client_that_never_pongs_is_closed():
    async with Daemon("--ws-ping-interval", "1", "--ws-ping-timeout", "1") as daemon:
        async with await Raw.open(daemon.port) as raw:
            began = time.monotonic()
            expect((await asyncio.wait_for(raw.frame(), 10)).opcode, PING, "the first frame")
            try:
                while (got := await asyncio.wait_for(raw.frame(), 15)).opcode != CLOSE:
                    expect(got.opcode, PING, "a frame before the close")
                # A close code of ours, as 1011 "ping timeout" is; never "all is well".
                require(got.close_code not in (1000, 1001), f"closed with {got.close_code}")
            except asyncio.IncompleteReadError:
                pass
            expect(await asyncio.wait_for(raw.at_end(), 15), True, "the connection ends")
            took = time.monotonic() - began
            require(took > 1.5, f"closed after {took:.2f} s, before the pong was due")


@case
async def its_session_can_be_resumed_afterwards():
    async with Daemon("--ws-ping-interval", "1", "--ws-ping-timeout", "1") as daemon:
        async with await Raw.open(daemon.port, "?session_id=silent") as raw:
            await raw.send(frame(TEXT, "one"))
            # No pong is sent here: only `text()` answers pings, and none has come yet.
            expect(await raw.text(), '{"count": 1}', "reply")
            await asyncio.wait_for(raw.reader.read(-1), 20)
        async with daemon.connect("?session_id=silent") as client:
            expect(client.response.headers["X-Session-Count"], "1", "X-Session-Count")


@case
async def interval_0_means_no_pings():
    async with Daemon("--ws-ping-interval", "0", "--ws-ping-timeout", "1") as daemon:
        async with await Raw.open(daemon.port) as raw:
            try:
                got = await asyncio.wait_for(raw.frame(), 3)
            except TimeoutError:
                return
            expect(got, None, "a frame on an idle connection")


@case
async def the_pings_of_a_library_are_answered():
    async with Daemon() as daemon:
        async with daemon.connect(ping_interval=0.2, ping_timeout=5) as client:
            await asyncio.sleep(1.5)
            await client.send("still here")
            expect(await client.recv(), '{"count": 1}', "reply after some pings")
            require(client.latency > 0, "no pong came")


run()
