"""Cases: --app echo. Text and binary come back unchanged, whatever their size and cut.

Not here: protocol errors and their close codes, which the Rust tests hold against an oracle.
"""

import asyncio
import os

import websockets

from harness import Daemon, case, expect, require, run
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, frame

MIB = 1 << 20


async def echoes(client, *messages):
    for message in messages:
        await client.send(message)
    for message in messages:
        found = await client.recv()
        require(type(found) is type(message), f"{type(message)} came back as {type(found)}")
        require(found == message, f"{len(message)} came back as {len(found)}, or changed")


@case
async def text_binary_and_empty():
    async with Daemon("--app", "echo") as daemon, daemon.connect() as client:
        await echoes(client, "hello", b"\x00\x01\xfe\xff", "", b"", "Grüße 世界 🌍", "quit\n")


@case
async def every_size_near_the_edges_of_the_header():
    async with Daemon("--app", "echo") as daemon, daemon.connect() as client:
        for edge in (125, 126, 4096, 65535, 65536):
            for size in (edge - 1, edge, edge + 1):
                await echoes(client, os.urandom(size), "t" * size)


@case(seconds=60)
async def one_and_sixteen_mib():
    async with Daemon("--app", "echo") as daemon:
        async with daemon.connect(max_size=None, compression=None) as client:
            await echoes(client, os.urandom(MIB))
            await echoes(client, "世" * (MIB // 3))
            await echoes(client, os.urandom(16 * MIB))
        # The same as a library with its defaults sends it, where it may offer compression.
        async with daemon.connect(max_size=None) as client:
            await echoes(client, os.urandom(MIB), "plain text " * 90_000)


@case
async def one_byte_too_large_closes_with_1009():
    # The header declares it, so the answer is due before the payload is there.
    async with Daemon("--app", "echo") as daemon:
        for size in (16 * MIB + 1, 1 << 31, 1 << 40):
            async with await Raw.open(daemon.port) as raw:
                header = bytes([0x80 | BINARY, 0x80 | 127]) + size.to_bytes(8, "big")
                await raw.send(header + b"mask" + bytes(1000))
                got = await raw.frame()
                expect((got.opcode, got.close_code), (CLOSE, 1009), f"answer to {size} bytes")


@case
async def a_smaller_limit_can_be_set():
    async with Daemon("--app", "echo", "--ws-max-size", "1000") as daemon:
        async with daemon.connect() as client:
            await echoes(client, bytes(1000), "t" * 1000)
            await client.send(bytes(1001))
            try:
                expect(await client.recv(), None, "an answer to a message too large")
            except websockets.ConnectionClosed:
                expect(client.close_code, 1009, "close code")
        # Fragments add up to the same limit.
        async with daemon.connect() as client:
            try:
                await client.send([bytes(400), bytes(400), bytes(201)])
                expect(await client.recv(), None, "an answer to fragments too large together")
            except websockets.ConnectionClosed:
                expect(client.close_code, 1009, "close code")


@case
async def fragmented_messages_come_back_whole():
    async with Daemon("--app", "echo") as daemon, daemon.connect(max_size=None) as client:
        await client.send(["Grü", "", "ße ", "世界"])
        expect(await client.recv(), "Grüße 世界", "text in four fragments")
        await client.send([bytes([n]) * n for n in range(200)])
        expect(await client.recv(), b"".join(bytes([n]) * n for n in range(200)), "200 fragments")
        await client.send([b"x" * 300_000] * 10)
        require(await client.recv() == b"x" * 3_000_000, "3 MB in ten fragments")


@case
async def fragments_cut_inside_a_character_with_pings_between():
    async with Daemon("--app", "echo") as daemon, await Raw.open(daemon.port) as raw:
        whole = "世界🌍".encode()
        opcode = TEXT
        for at in range(len(whole)):
            await raw.send(frame(opcode, whole[at : at + 1], final=at == len(whole) - 1))
            opcode = CONTINUATION
            if at < len(whole) - 1:
                await raw.send(frame(PING, bytes([at])))
                got = await raw.frame()
                expect((got.opcode, got.payload), (PONG, bytes([at])), "the pong in between")
        expect(await raw.text(), "世界🌍", "text cut into bytes")


@case
async def a_megabyte_byte_by_byte_at_the_frame_header():
    # The header of every frame split over packets, the payload in odd pieces.
    async with Daemon("--app", "echo") as daemon, await Raw.open(daemon.port) as raw:
        for size in (5, 200, 70_000):
            payload = os.urandom(size)
            whole = frame(BINARY, payload)
            await raw.send_bytewise(whole[:20], 0.002)
            for at in range(20, len(whole), 1777):
                await raw.send(whole[at : at + 1777])
                await asyncio.sleep(0)
            require((await raw.frame()).payload == payload, f"{size} bytes in pieces")


@case(seconds=60)
async def both_directions_at_once():
    # More in flight than any buffer holds: the server must stop reading, not grow and not lock up.
    async with Daemon("--app", "echo", "--max-send-buffer", "65536") as daemon:
        async with daemon.connect(max_size=None, compression=None) as client:
            pieces = [os.urandom(100_000) for _ in range(300)]

            async def send():
                for piece in pieces:
                    await client.send(piece)

            sender = asyncio.create_task(send())
            await asyncio.sleep(0.5)
            for number, piece in enumerate(pieces):
                require(await client.recv() == piece, f"piece {number} changed")
            await sender
            grown = daemon.memory() / MIB
            require(grown < 100, f"{grown:.0f} MiB resident for one connection")


run()
