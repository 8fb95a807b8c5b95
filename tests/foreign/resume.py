"""Cases: a reconnect finds its count, whichever of four reactors it lands on.

1,000 reconnects each way: by ids the client chose, by ids the server issued, with frames in the
same packet as the request, and with the request byte by byte.

Not here: the forms of session_id and the headers (session_forms.py), takeover (takeover.py).
"""

from harness import Daemon, case, expect, note, require, run, some_at_a_time
from raw import BINARY, TEXT, Raw, close, frame, upgrade
from scrape import scrape

WORKERS = ("--workers", "4", "--no-access-log")


async def hand_overs(daemon):
    """The sum of the metrics that count hand-overs; more than none, or the case proved nothing."""
    found = await scrape(daemon)
    names = [name for name in found.names() if "hand" in name and "over" in name]
    require(names, "no metric counts hand-overs")
    moved = sum(found.value(name) for name in names)
    require(moved > 0, "no connection was handed over, so this case proved nothing")
    note(f"{moved:.0f} hand-overs in and out")


async def reconnects(daemon, identity, times, counted=0):
    """Connects `times` times as `identity`, counting one message each time."""
    for number in range(counted + 1, counted + times + 1):
        async with daemon.connect(f"?session_id={identity}") as client:
            headers = client.response.headers
            expect(headers["X-Session-Id"], identity, "X-Session-Id")
            expect(headers["X-Session-Count"], str(number - 1), f"X-Session-Count of {identity}")
            resumed = "true" if number > 1 else "false"
            expect(headers["X-Session-Resumed"], resumed, "X-Session-Resumed")
            await client.send("hello")
            expect(await client.recv(), f'{{"count": {number}}}', f"reply to {identity}")


@case(seconds=90)
async def a_thousand_reconnects_by_chosen_ids():
    async with Daemon(*WORKERS) as daemon:
        await some_at_a_time(100, lambda n: reconnects(daemon, f"chosen-{n}", 10))
        await hand_overs(daemon)


@case(seconds=90)
async def a_thousand_reconnects_by_issued_ids():
    async with Daemon(*WORKERS) as daemon:
        issued = set()

        async def one(_):
            async with daemon.connect() as client:
                identity = client.response.headers["X-Session-Id"]
                issued.add(identity)
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "first reply")
            await reconnects(daemon, identity, 10, counted=1)

        await some_at_a_time(100, one)
        expect(len(issued), 100, "different ids among 100 new sessions")
        await hand_overs(daemon)


@case(seconds=90)
async def reconnects_without_a_goodbye():
    # The old connection is not closed before the new one comes: its count must be there anyhow.
    async with Daemon(*WORKERS) as daemon:

        async def one(identity):
            for number in range(1, 11):
                client = await daemon.connect(f"?session_id={identity}")
                expect(client.response.headers["X-Session-Count"], str(number - 1), "count")
                await client.send("hello")
                expect(await client.recv(), f'{{"count": {number}}}', f"reply to {identity}")
                client.transport.abort()

        await some_at_a_time(100, lambda n: one(f"abrupt-{n}"))


@case(seconds=90)
async def frames_in_the_packet_of_the_request():
    async with Daemon(*WORKERS) as daemon:

        async def one(identity):
            for visit in range(10):
                async with await Raw.connect(daemon.port) as raw:
                    await raw.send(
                        upgrade(f"?session_id={identity}")
                        + frame(TEXT, "one")
                        + frame(TEXT, "two" * 50)
                        + frame(TEXT, "three")
                        + close(1000)
                    )
                    answer = await raw.answer()
                    expect(answer.status, 101, "status")
                    expect(answer.headers["x-session-count"], str(3 * visit), "count on the 101")
                    for number in range(3 * visit + 1, 3 * visit + 4):
                        expect(await raw.text(), f'{{"count": {number}}}', f"reply to {identity}")
                    expect((await raw.frame()).close_code, 1000, "the echo of our close")
                    expect(await raw.at_end(), True, "the connection ends after the close")

        await some_at_a_time(100, lambda n: one(f"packet-{n}"))
        await hand_overs(daemon)


@case(seconds=120)
async def requests_byte_by_byte():
    async with Daemon(*WORKERS) as daemon:

        async def one(identity, pause):
            for number in (1, 2):
                async with await Raw.connect(daemon.port) as raw:
                    request = upgrade(f"?session_id={identity}")
                    await raw.send_bytewise(request + frame(TEXT, "hello"), pause)
                    answer = await raw.answer()
                    expect(answer.headers["x-session-count"], str(number - 1), "count on the 101")
                    expect(await raw.text(), f'{{"count": {number}}}', f"reply to {identity}")
                    await raw.send_bytewise(close(1000), pause)
                    expect((await raw.frame()).close_code, 1000, "the echo of our close")

        # 100 sessions as fast as they come, and 20 whose every byte the server is awake for.
        await some_at_a_time(100, lambda n: one(f"bytes-{n}", 0))
        await some_at_a_time(20, lambda n: one(f"slow-{n}", 0.002))
        await hand_overs(daemon)


@case(seconds=60)
async def a_frame_cut_by_the_hand_over_is_completed():
    # The packet of the request ends inside a frame: its first half moves with the connection.
    async with Daemon(*WORKERS) as daemon:

        async def one(number):
            message = frame(TEXT, "m" * 1000)
            cut = 1 + number * 10
            async with await Raw.connect(daemon.port) as raw:
                await raw.send(upgrade(f"?session_id=cut-{number}") + message[:cut])
                expect((await raw.answer()).status, 101, "status")
                await raw.send(message[cut:])
                expect(await raw.text(), '{"count": 1}', f"reply after a cut at byte {cut}")

        await some_at_a_time(100, one)
        await hand_overs(daemon)


@case(seconds=60)
async def a_large_message_in_the_packet_of_the_request():
    async with Daemon("--app", "echo", *WORKERS) as daemon:

        async def one(number):
            payload = bytes([number]) * 300_000
            async with await Raw.connect(daemon.port) as raw:
                await raw.send(upgrade(f"?session_id=large-{number}") + frame(BINARY, payload))
                expect((await raw.answer()).status, 101, "status")
                require((await raw.frame()).payload == payload, "the echo is not what was sent")

        await some_at_a_time(40, one)


run()
