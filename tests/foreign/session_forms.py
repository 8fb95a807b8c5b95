"""Cases: the three forms of session_id, hello=1, the response headers, bad ids, strict mode.

Not here: that many reconnects count right (resume.py).
"""

import asyncio
import json
import re

import websockets

from harness import Daemon, case, expect, require, run

PLAIN_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")


def headers(client):
    """Id, resumed and count as the 101 tells them; fails if one is missing or malformed."""
    found = client.response.headers
    for name in ("X-Session-Id", "X-Session-Resumed", "X-Session-Count"):
        require(name in found, f"no {name} on the 101")
    require(PLAIN_ID.fullmatch(found["X-Session-Id"]), f"malformed id {found['X-Session-Id']!r}")
    require(found["X-Session-Resumed"] in ("true", "false"), "X-Session-Resumed is true or false")
    resumed = found["X-Session-Resumed"] == "true"
    return found["X-Session-Id"], resumed, int(found["X-Session-Count"])


def hello(identity, count, resumed):
    """The first message, spacing and all."""
    truth = "true" if resumed else "false"
    return f'{{"session_id": "{identity}", "count": {count}, "resumed": {truth}}}'


async def count_to(client, first, last):
    for number in range(first, last + 1):
        await client.send("hello")
        expect(await client.recv(), f'{{"count": {number}}}', "reply")


@case
async def absent_a_new_session_and_no_hello():
    async with Daemon() as daemon, daemon.connect() as client:
        _, resumed, count = headers(client)
        expect((resumed, count), (False, 0), "resumed and count of a new session")
        await count_to(client, 1, 2)


@case
async def empty_a_new_session_and_its_hello():
    async with Daemon() as daemon:
        for query in ("?session_id=", "?session_id", "?session_id=&other=1"):
            async with daemon.connect(query) as client:
                identity, resumed, count = headers(client)
                expect((resumed, count), (False, 0), f"resumed and count for {query}")
                first = await client.recv()
                expect(first, hello(identity, 0, False), f"first message for {query}")
                json.loads(first)
                await count_to(client, 1, 2)
            async with daemon.connect(f"?session_id={identity}") as client:
                expect(headers(client), (identity, True, 2), "headers of the reconnect")
                await count_to(client, 3, 3)


@case
async def given_an_unknown_id_starts_at_0_under_that_name():
    async with Daemon() as daemon:
        async with daemon.connect("?session_id=alice") as client:
            expect(headers(client), ("alice", False, 0), "headers of the first visit")
            await count_to(client, 1, 3)
        async with daemon.connect("?session_id=alice") as client:
            expect(headers(client), ("alice", True, 3), "headers of the second visit")
            await count_to(client, 4, 4)


@case
async def hello_1_tells_it_on_any_connect():
    async with Daemon() as daemon:
        async with daemon.connect("?hello=1") as client:
            identity, _, _ = headers(client)
            expect(await client.recv(), hello(identity, 0, False), "hello without an id")
            await count_to(client, 1, 1)
        async with daemon.connect("?session_id=bob&hello=1") as client:
            expect(await client.recv(), hello("bob", 0, False), "hello to an unknown id")
            await count_to(client, 1, 2)
        for query in ("?hello=1&session_id=bob", "?a=b&session_id=bob&hello=1&c=d"):
            async with daemon.connect(query) as client:
                expect(await client.recv(), hello("bob", 2, True), f"hello to {query}")
        async with daemon.connect("?session_id=bob&hello=0") as client:
            await count_to(client, 3, 3)


@case
async def issued_ids_are_long_and_never_repeat():
    async with Daemon("--workers", "4", "--no-access-log") as daemon:

        async def one():
            async with daemon.connect() as client:
                return headers(client)[0]

        issued = []
        for _ in range(5):
            issued += await asyncio.gather(*(one() for _ in range(50)))
        expect(len(set(issued)), 250, "different ids among 250")
        # 128 bits are 22 characters of a 64-letter alphabet, or 26 of 32, or 32 of 16.
        shortest = min(issued, key=len)
        require(len(shortest) >= 22, f"{shortest!r} is too short for 128 random bits")


@case
async def percent_encoding_is_undone():
    async with Daemon() as daemon:
        async with daemon.connect("?session_id=%41b%2Ec%2dd%5f%7E") as client:
            expect(headers(client)[0], "Ab.c-d_~", "the id as decoded")
            await count_to(client, 1, 1)
        async with daemon.connect("?session_id=Ab.c-d_~") as client:
            expect(headers(client), ("Ab.c-d_~", True, 1), "the same session by its plain id")


@case
async def other_parameters_are_ignored_and_the_first_id_counts():
    async with Daemon() as daemon:
        for query in ("?x=1&session_id=first&session_id=two", "?session_id=first&session_id=%00"):
            async with daemon.connect(query) as client:
                expect(headers(client)[0], "first", f"the id of {query}")
        for query in ("?xsession_id=a", "?session_idx=a", "?SESSION_ID=a", "?", "?&&=&"):
            async with daemon.connect(query) as client:
                require(headers(client)[0] != "a", f"{query} names no session")
                await count_to(client, 1, 1)


@case
async def the_longest_id_and_one_more():
    async with Daemon() as daemon:
        longest = "x" * 128
        async with daemon.connect(f"?session_id={longest}") as client:
            expect(headers(client)[0], longest, "an id of 128 characters")
        await refused(daemon, "?session_id=" + "x" * 129)


async def refused(daemon, query):
    try:
        async with daemon.connect(query) as client:
            found = headers(client)
    except websockets.InvalidStatus as error:
        expect(error.response.status_code, 400, f"status for {query}")
        return
    expect(found, "HTTP 400", f"what {query} got")


@case
async def bad_ids_get_400():
    async with Daemon() as daemon:
        for bad in (
            "a%20b", "a+b", "a%2Fb", "a/b", "a%00b", "a%0d%0ab", "caf%C3%A9", "a%22b", "%7F",
            "%zz", "%4", "%", "a%", "a=b", "a:b", "a,b", "*",
        ):
            await refused(daemon, f"?session_id={bad}")
        # The daemon is none the worse for it.
        async with daemon.connect("?session_id=fine") as client:
            await count_to(client, 1, 1)


@case
async def strict_mode_takes_up_only_what_it_issued():
    async with Daemon("--session-ids", "issued", "--workers", "4") as daemon:
        for number in range(40):
            async with daemon.connect(f"?session_id=planted-{number}") as client:
                identity, resumed, count = headers(client)
                require(identity != f"planted-{number}", "an unknown id was taken up")
                expect((resumed, count), (False, 0), "resumed and count")
                await count_to(client, 1, 2)
            async with daemon.connect(f"?session_id={identity}") as client:
                expect(headers(client), (identity, True, 2), "headers of an issued id")
                await count_to(client, 3, 3)
            async with daemon.connect(f"?session_id=planted-{number}&hello=1") as client:
                other, resumed, count = headers(client)
                expect((resumed, count), (False, 0), "resumed and count of the second try")
                require(other not in (identity, f"planted-{number}"), "a new id was due")
                expect(await client.recv(), hello(other, 0, False), "hello in strict mode")


@case
async def a_never_counted_session_is_not_kept():
    async with Daemon() as daemon:
        for _ in range(3):
            async with daemon.connect("?session_id=silent") as client:
                expect(headers(client), ("silent", False, 0), "headers of a silent session")
        async with daemon.connect("?session_id=quitter") as client:
            await client.send("quit")
            expect(await client.recv(), '{"bye": true, "total": 0}', "goodbye")
        async with daemon.connect("?session_id=quitter") as client:
            expect(headers(client), ("quitter", False, 0), "headers after a quit alone")


run()
