"""Cases: /metrics, read by the parser real scrapers use.

Not here: how that reading is done (scrape.py).
"""

import asyncio

from harness import Daemon, Failure, case, expect, note, require, run, until
from raw import TEXT, Raw, frame
from scrape import scrape

# What the Django service's dashboards ask for.
DASHBOARD = (
    "ws_active_connections",
    "ws_total_messages_total",
    "ws_error_count_total",
    "ws_shutdown_duration_seconds",
)


async def is_at(daemon, name, wanted, **labels):
    """Waits until a metric has a value: reactors publish theirs at the end of a turn."""
    async def there():
        return (await scrape(daemon)).value(name, **labels) == wanted

    try:
        await until(there, 5, name)
    except Failure:
        found = (await scrape(daemon)).value(name, **labels)
        raise Failure(f"{name}{labels or ''}: {found}, wanted {wanted}") from None


@case
async def every_family_has_help_and_type():
    async with Daemon() as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            await client.recv()
            found = await scrape(daemon)
        require(found.content_type.startswith("text/plain"), f"content type {found.content_type}")
        helped, typed = set(), {}
        for line in found.text.splitlines():
            if line.startswith("# HELP "):
                _, _, name, text = line.split(" ", 3)
                require(text.strip(), f"the HELP of {name} is empty")
                require(name not in helped, f"two HELPs for {name}")
                helped.add(name)
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                require(name not in typed, f"two TYPEs for {name}")
                require(kind in ("counter", "gauge", "histogram", "summary"), f"{name} is {kind}")
                typed[name] = kind
        expect(helped, set(typed), "families with HELP, against those with TYPE")
        for family in found.families:
            require(family.type != "unknown", f"{family.name} has no TYPE")
            require(family.documentation, f"{family.name} has no HELP")
        seen = [(s.name, tuple(sorted(s.labels.items()))) for s in found.samples]
        expect(len(seen), len(set(seen)), "samples, against different ones")
        require(found.text.endswith("\n"), "the last line has no end")
        for name, kind in typed.items():
            if kind == "counter":
                require(name.endswith("_total"), f"counter {name} does not end in _total")
        note(f"{len(typed)} families, {len(seen)} samples")


@case
async def the_dashboard_names_are_there_from_the_start():
    async with Daemon() as daemon:
        names = (await scrape(daemon)).names()
        for name in DASHBOARD:
            # A histogram or summary spells its samples _count, _sum, _bucket.
            require(name in names or f"{name}_count" in names, f"no {name}")


@case
async def connections_and_messages_move():
    async with Daemon("--workers", "4") as daemon:
        await is_at(daemon, "ws_active_connections", 0)
        clients = await asyncio.gather(*(daemon.connect() for _ in range(8)))
        await is_at(daemon, "ws_active_connections", 8)
        for client in clients:
            for _ in range(5):
                await client.send("hello")
                await client.recv()
            await client.send(b"\x01")
            await client.recv()
        await is_at(daemon, "ws_total_messages_total", 48)
        await asyncio.gather(*(client.close() for client in clients[:3]))
        await is_at(daemon, "ws_active_connections", 5)
        clients[3].transport.abort()
        await is_at(daemon, "ws_active_connections", 4)
        await asyncio.gather(*(client.close() for client in clients[4:]))
        await is_at(daemon, "ws_active_connections", 0)
        await is_at(daemon, "ws_total_messages_total", 48)


@case
async def protocol_errors_are_counted():
    async with Daemon() as daemon:
        await is_at(daemon, "ws_error_count_total", 0)
        for number in (1, 2, 3):
            async with await Raw.open(daemon.port) as raw:
                await raw.send(frame(TEXT, "without a mask", masked=False))
                expect((await raw.frame()).close_code, 1002, "the close of an unmasked frame")
            await is_at(daemon, "ws_error_count_total", number)
        async with daemon.connect() as client:
            await client.send("all is well")
            await client.recv()
        await is_at(daemon, "ws_error_count_total", 3)


@case
async def what_is_counted_per_reactor():
    async with Daemon("--workers", "3") as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            await client.recv()
            found = await scrape(daemon)
        names = found.names()
        # Each must be somewhere in a name; what stands before and behind it is free.
        for word in (
            "connections", "sessions_live", "sessions_detached", "hand_overs_in", "hand_overs_out",
            "takeover", "expir", "bytes_in", "bytes_out", "turns", "events", "asleep", "busy",
            "accept", "closed_total", "rejected_total",
        ):
            found_one = any(word in name for name in names)
            require(found_one, f"no metric for {word} among {sorted(names)}")
        reactors = {s.labels["reactor"] for s in found.samples if "reactor" in s.labels}
        expect(len(reactors), 3, "reactors with figures of their own")


@case
async def closes_and_refusals_are_counted_by_reason():
    async with Daemon() as daemon:
        async with daemon.connect() as client:
            await client.send("quit")
            await client.recv()
        async with daemon.connect() as client:
            await client.close(1001)
        async with await Raw.connect(daemon.port) as raw:
            await raw.ask("/ws/chat/?session_id=%00", headers=["Upgrade: websocket"])

        async def counted():
            found = await scrape(daemon)
            (closed,) = [n for n in found.names() if n.endswith("closed_total")]
            (rejected,) = [n for n in found.names() if n.endswith("rejected_total")]
            labels = {frozenset(s.labels) - {"reactor"} for s in found.samples if s.name == closed}
            expect(labels, {frozenset({"code", "side"})}, f"labels of {closed}")
            return (
                found.value(closed, code="1000") == 1
                and found.value(closed, code="1001") == 1
                and found.value(rejected) == 1
            )

        await until(counted, 5, "closes by 1000 and 1001 and one refusal counted")


@case
async def many_scrapes_at_once_disturb_nobody():
    async with Daemon() as daemon, daemon.connect() as client:
        scrapes = [asyncio.create_task(scrape(daemon)) for _ in range(50)]
        for number in range(1, 201):
            await client.send("hello")
            expect(await client.recv(), f'{{"count": {number}}}', "reply beside the scrapes")
        for found in await asyncio.gather(*scrapes):
            expect(found.value("ws_active_connections"), 1, "ws_active_connections")


run()
