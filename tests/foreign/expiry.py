"""Cases: how long a session outlives its connection, and how many are kept.

Not here: that a session which never counted is not kept (session_forms.py).
"""

import asyncio

from harness import Daemon, case, expect, run


async def visit(daemon, identity, messages=0):
    """Connects, sends so many messages, leaves; returns (resumed, count) as the 101 told it."""
    async with daemon.connect(f"?session_id={identity}") as client:
        told = client.response.headers
        for _ in range(messages):
            await client.send("hello")
            await client.recv()
        return told["X-Session-Resumed"] == "true", int(told["X-Session-Count"])


@case
async def a_session_ends_its_ttl_after_the_disconnect():
    async with Daemon("--session-ttl", "1", "--workers", "2") as daemon:
        names = [f"gone-{number}" for number in range(20)]
        for name in names:
            expect(await visit(daemon, name, 3), (False, 0), "first visit")
        await asyncio.sleep(4)
        for name in names:
            expect(await visit(daemon, name), (False, 0), f"{name} after its TTL")


@case
async def the_ttl_does_not_run_while_connected():
    async with Daemon("--session-ttl", "2") as daemon:
        async with daemon.connect("?session_id=stays") as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "first reply")
            await asyncio.sleep(4)
            await client.send("hello")
            expect(await client.recv(), '{"count": 2}', "reply after twice the TTL")
        expect(await visit(daemon, "stays"), (True, 2), "a reconnect at once")


@case
async def each_disconnect_starts_the_ttl_anew():
    async with Daemon("--session-ttl", "3") as daemon:
        for number in range(4):
            expect(await visit(daemon, "often", 1), (number > 0, number), f"visit {number}")
            await asyncio.sleep(1.2)


@case
async def ttl_0_keeps_nothing():
    async with Daemon("--session-ttl", "0") as daemon:
        expect(await visit(daemon, "brief", 3), (False, 0), "first visit")
        await asyncio.sleep(0.5)
        expect(await visit(daemon, "brief", 1), (False, 0), "second visit")


@case
async def beyond_the_bound_the_longest_detached_leaves():
    async with Daemon("--max-sessions", "3", "--workers", "1") as daemon:
        for name in ("a", "b", "c", "d"):
            expect(await visit(daemon, name, 1), (False, 0), f"first visit of {name}")
        for name in ("d", "c", "b"):
            expect(await visit(daemon, name), (True, 1), f"second visit of {name}")
        expect(await visit(daemon, "a"), (False, 0), "a, the longest detached of four")


@case
async def visits_without_a_message_push_nobody_out():
    async with Daemon("--max-sessions", "3", "--workers", "1") as daemon:
        for name in ("a", "b", "c"):
            await visit(daemon, name, 1)
        for number in range(50):
            await visit(daemon, f"churn-{number}")
        for name in ("a", "b", "c"):
            expect(await visit(daemon, name), (True, 1), f"{name} after fifty silent visits")


run()
