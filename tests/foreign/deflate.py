"""Cases: --ws-per-message-deflate with Python's `websockets`, whose client compresses by default, and
with zlib itself, in every manner it has. Needs a daemon built with the feature `deflate`.

Not here: what a build without says (command_line.py); what is refused (the Rust tests).
"""

import os
import random
import zlib

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from harness import Daemon, case, expect, note, require, run
from raw import BINARY, CLOSE, PING, TEXT, Raw, frame, upgrade
from scrape import scrape

KIB, MIB = 1 << 10, 1 << 20
ON = ("--ws-per-message-deflate", "true")
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
RSV1 = 0x40
TEXTS = "Grüße 世界 🌍, the quick brown fox jumps over the lazy dog. "


def rows(size):
    """Text as services send it."""
    text = ", ".join(f'{{"id": {n}, "at": {n * 7919 % 1000}, "on": true}}' for n in range(size // 20))
    return text[:size]


def agreed(client):
    return client.response.headers.get("Sec-WebSocket-Extensions")


async def echoes(client, *messages):
    for message in messages:
        await client.send(message)
    for message in messages:
        found = await client.recv()
        require(type(found) is type(message), f"{type(message)} came back as {type(found)}")
        require(found == message, f"{len(message)} came back as {len(found)}, or changed")


@case
async def a_client_with_its_defaults_compresses():
    async with Daemon("--app", "echo", *ON) as daemon, daemon.connect(max_size=None) as client:
        expect(agreed(client), AGREED, "the field of the 101")
        await echoes(client, "", b"", "quit", b"\x00\xff", TEXTS, TEXTS.encode() * 9)
        for edge in (125, 1024, 4096, 32768, 65536, 2 * 65536, MIB):
            for size in (edge - 1, edge, edge + 1):
                await echoes(client, os.urandom(size), rows(size), b"z" * size)
        await echoes(client, TEXTS * 5000, rows(5 * MIB))


@case(seconds=60)
async def a_message_may_be_as_large_as_the_limit_and_larger_on_the_wire():
    # What cannot be compressed grows, and with the settings of websockets by 40 KiB.
    async with Daemon("--app", "echo", *ON) as daemon:
        async with daemon.connect(max_size=None) as client:
            await echoes(client, os.urandom(16 * MIB), rows(16 * MIB))
            await client.send(os.urandom(16 * MIB + 1))
            await client.wait_closed()
            expect(client.close_code, 1009, "close code of one byte more")


@case
async def both_directions_are_smaller_on_the_wire():
    async with Daemon("--app", "echo", *ON) as daemon:
        async with daemon.connect() as client:
            before = await scrape(daemon)
            for _ in range(100):
                await echoes(client, rows(10 * KIB))
            after = await scrape(daemon)
        for way in ("in", "out"):
            name = f"revolve_bytes_{way}_total"
            # The scrapes themselves are some 20 KiB.
            moved = after.value(name) - before.value(name)
            note(f"1000 KiB of JSON {way}: {moved / KIB:.0f} KiB")
            require(moved < 300 * KIB, f"{moved:.0f} bytes {way}")


@case
async def without_the_option_nothing_is_agreed_to():
    async with Daemon("--app", "echo") as daemon, daemon.connect() as client:
        expect(agreed(client), None, "the field of the 101")
        await echoes(client, rows(10 * KIB))


@case
async def a_client_that_does_not_offer_hears_plain_text():
    async with Daemon("--app", "echo", *ON) as daemon:
        async with daemon.connect(compression=None) as client:
            expect(agreed(client), None, "the field of the 101")
            await echoes(client, rows(10 * KIB))


@case
async def every_window_is_kept_to():
    # websockets inflates with a window of just so many bits: to look back further is an error.
    async with Daemon("--app", "echo", *ON) as daemon:
        for bits in range(8, 16):
            extension = ClientPerMessageDeflateFactory(
                server_max_window_bits=bits, client_max_window_bits=max(bits, 9)
            )
            async with daemon.connect(
                compression=None, extensions=[extension], max_size=None
            ) as client:
                expect(agreed(client), f"{AGREED}; server_max_window_bits={bits}", f"{bits} bits")
                for size in (KIB, 8 * KIB, 40 * KIB, MIB):
                    await echoes(client, rows(size), os.urandom(size))


@case
async def fragments_and_pings_in_between():
    async with Daemon("--app", "echo", *ON) as daemon, daemon.connect() as client:
        await client.send([rows(3000), "", TEXTS, rows(3000)])
        expect(await client.recv(), rows(3000) + TEXTS + rows(3000), "text in four fragments")
        await client.send([bytes([n]) * n for n in range(200)])
        expect(await client.recv(), b"".join(bytes([n]) * n for n in range(200)), "200 fragments")
        await (await client.ping())


@case
async def the_counter_counts_compressed_messages():
    async with Daemon(*ON) as daemon:
        async with daemon.connect("?session_id=compressed") as client:
            for n in range(1, 50):
                await client.send(rows(n * 100))
                expect(await client.recv(), f'{{"count": {n}}}', "reply")
        async with daemon.connect("?session_id=compressed", compression=None) as client:
            await client.send("plain")
            expect(await client.recv(), '{"count": 50}', "reply to the same session, plain")


async def open_raw(daemon):
    """A connection of bytes that has offered to compress."""
    raw = await Raw.connect(daemon.port)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    await raw.send(upgrade()[:-2] + offer)
    answer = await raw.answer()
    expect((answer.status, answer.headers.get("sec-websocket-extensions")), (101, AGREED), "101")
    return raw


async def message(raw):
    """The next message, inflated by zlib if it came deflated."""
    got = await raw.frame()
    require(got.opcode in (TEXT, BINARY), f"{got} where a message was due")
    if got.head[0] & RSV1:
        # RFC 7692 7.2.2; and behind what was left out there is nothing.
        inflater = zlib.decompressobj(wbits=-15)
        whole = inflater.decompress(got.payload + b"\0\0\xff\xff")
        expect((inflater.unconsumed_tail, inflater.unused_data), (b"", b""), "left over")
        return whole
    return got.payload


@case(seconds=60)
async def whatever_zlib_can_do_is_understood():
    strategies = (
        zlib.Z_DEFAULT_STRATEGY,
        zlib.Z_FILTERED,
        zlib.Z_HUFFMAN_ONLY,
        zlib.Z_RLE,
        zlib.Z_FIXED,
    )
    flushes = (zlib.Z_NO_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)
    draw = random.Random(7692)
    async with Daemon("--app", "echo", *ON) as daemon, await open_raw(daemon) as raw:
        for round in range(400):
            size = draw.choice((0, 1, 100, 3000, 70_000))
            kind = draw.randrange(3)
            said = (draw.randbytes(size), rows(size).encode(), b"ab" * (size // 2))[kind]
            deflater = zlib.compressobj(
                level=draw.randrange(10),
                wbits=-draw.randrange(9, 16),
                memLevel=draw.randrange(1, 10),
                strategy=draw.choice(strategies),
            )
            cut = draw.randrange(len(said) + 1)
            deflated = deflater.compress(said[:cut]) + deflater.flush(draw.choice(flushes))
            deflated += deflater.compress(said[cut:]) + deflater.flush(zlib.Z_SYNC_FLUSH)
            # zlib adds nothing where it has just flushed; a message ends with an empty block.
            if not deflated.endswith(b"\0\0\xff\xff"):
                deflated += b"\0\0\0\xff\xff"
            await raw.send(frame(BINARY | RSV1, deflated[:-4]))
            require(await message(raw) == said, f"{size} bytes changed in round {round}")


@case
async def a_message_may_end_with_a_last_block():
    # RFC 7692 7.2.3.4: finished, with the header of an empty block behind it.
    async with Daemon("--app", "echo", *ON) as daemon, await open_raw(daemon) as raw:
        for said in (b"", b"Hello", rows(100_000).encode()):
            deflater = zlib.compressobj(wbits=-15)
            whole = deflater.compress(said) + deflater.flush()
            await raw.send(frame(BINARY | RSV1, whole + b"\0"))
            require(await message(raw) == said, f"{len(said)} bytes changed")


@case(seconds=60)
async def bombs_are_answered_with_1009_and_the_others_go_on():
    bomb = zlib.compressobj(level=9, wbits=-15)
    bomb = bomb.compress(bytes(16 * MIB + 1)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    async with Daemon("--app", "echo", "--workers", "1", *ON) as daemon:
        async with daemon.connect() as client:
            await echoes(client, TEXTS)
            before = daemon.memory()
            bombers = [await open_raw(daemon) for _ in range(50)]
            for raw in bombers:
                await raw.send(frame(BINARY | RSV1, bomb[:-4]))
            await echoes(client, TEXTS, rows(3000))
            for raw in bombers:
                got = await raw.frame()
                expect((got.opcode, got.close_code), (CLOSE, 1009), "answer to a bomb")
                raw.abort()
            grown = (daemon.memory() - before) / MIB
            note(f"50 bombs of 16 MiB in {len(bomb) / KIB:.0f} KiB each: {grown:.0f} MiB more")
            require(grown < 64, f"{grown:.0f} MiB more")
            await echoes(client, TEXTS)


@case(seconds=60)
async def what_cannot_be_held_inflated_is_answered_with_1013_and_the_others_go_on():
    large = zlib.compressobj(level=9, wbits=-15)
    large = large.compress(bytes(200 * MIB)) + large.flush(zlib.Z_SYNC_FLUSH)
    limits = ("--ws-max-size", str(256 * MIB), "--workers", "1")
    async with Daemon("--app", "counter", *limits, *ON) as daemon:
        async with daemon.connect() as client:
            await client.send("before")
            expect(await client.recv(), '{"count": 1}', "a bystander's count")
            daemon.bound_memory(40 * MIB)
            for _ in range(3):
                async with await open_raw(daemon) as raw:
                    await raw.send(frame(BINARY | RSV1, large[:-4]))
                    got = await raw.frame()
                    expect((got.opcode, got.close_code), (CLOSE, 1013), "answer to 200 MiB")
            await client.send("after")
            expect(await client.recv(), '{"count": 2}', "a bystander's count")
            refused = (await scrape(daemon)).value("revolve_out_of_memory_total")
            expect(refused, 3, "revolve_out_of_memory_total")


@case
async def what_does_not_inflate_is_answered_with_1007():
    async with Daemon("--app", "echo", *ON) as daemon:
        for wrong in (b"Hello", b"", b"\xf2\x48\xcd", b"\x06\0"):
            async with await open_raw(daemon) as raw:
                await raw.send(frame(BINARY | RSV1, wrong))
                got = await raw.frame()
                expect((got.opcode, got.close_code), (CLOSE, 1007), f"answer to {wrong}")
        async with await open_raw(daemon) as raw:
            await raw.send(frame(PING | RSV1, b""))
            got = await raw.frame()
            expect((got.opcode, got.close_code), (CLOSE, 1002), "answer to a deflated ping")


run()
