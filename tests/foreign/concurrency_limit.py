"""Cases: --limit-concurrency. The one too many gets 503; the rest of the service goes on.

Not here: thousands of connections (many_connections.py).
"""

import asyncio

import websockets

from harness import Daemon, Failure, case, expect, require, run, until
from raw import Raw
from scrape import scrape


async def refused(daemon):
    try:
        async with daemon.connect():
            raise Failure("an upgrade beyond the limit was let in")
    except websockets.InvalidStatus as error:
        expect(error.response.status_code, 503, "status beyond the limit")


@case
async def the_third_of_two_gets_503():
    for workers in ("1", "4"):
        async with Daemon("--limit-concurrency", "2", "--workers", workers) as daemon:
            async with daemon.connect() as one, daemon.connect() as two:
                for _ in range(5):
                    await refused(daemon)
                async with await Raw.connect(daemon.port) as raw:
                    expect((await raw.ask("/healthz")).status, 200, "healthz at the limit")
                    expect((await raw.ask("/metrics")).status, 200, "metrics at the limit")
                for client in (one, two):
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply at the limit")
                found = await scrape(daemon)
                (name,) = [n for n in found.names() if n.endswith("rejected_total")]
                require(found.value(name) >= 5, f"{name} says {found.value(name)} after 5 refusals")


@case
async def a_place_that_gets_free_is_given_again():
    async with Daemon("--limit-concurrency", "2", "--workers", "4") as daemon:
        keeps = await daemon.connect()
        for number in range(20):
            client = await daemon.connect(f"?session_id=turn-{number}")
            await refused(daemon)
            if number % 2:
                await client.close()
            else:
                client.transport.abort()

            async def free():
                return (await scrape(daemon)).value("ws_active_connections") == 1

            await until(free, 5, "the place is free again")
        await keeps.send("hello")
        expect(await keeps.recv(), '{"count": 1}', "reply to the one that stayed")
        await keeps.close()


@case
async def a_takeover_at_the_limit_gets_its_own_place():
    # The older of the two leaves, so nobody is one too many.
    async with Daemon("--limit-concurrency", "2", "--workers", "4") as daemon:
        other = await daemon.connect("?session_id=other")
        older = await daemon.connect("?session_id=same")
        for number in range(1, 21):
            newer = await daemon.connect("?session_id=same")
            await older.wait_closed()
            expect(older.close_code, 4001, f"close code of the older, takeover {number}")
            await newer.send("hello")
            expect(await newer.recv(), f'{{"count": {number}}}', "reply to the newer")
            older = newer
        await older.close()
        await other.close()


@case
async def a_crowd_at_once_never_exceeds_the_limit():
    async with Daemon("--limit-concurrency", "10", "--workers", "4") as daemon:

        async def attempt():
            try:
                return await daemon.connect()
            except websockets.InvalidStatus as error:
                expect(error.response.status_code, 503, "status beyond the limit")

        clients = await asyncio.gather(*(attempt() for _ in range(100)))
        inside = [client for client in clients if client]
        expect(len(inside), 10, "connections let in")
        await asyncio.gather(*(client.close() for client in inside))


run()
