"""Cases: the counter. What is counted, what the reply is byte for byte, and `quit`.

Not here: resuming a count (resume.py), the heartbeat (heartbeat.py).
"""

import asyncio
import socket

import websockets

from harness import Daemon, case, expect, run
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, close, frame, upgrade


@case
async def text_and_binary_are_counted():
    async with Daemon() as daemon, daemon.connect() as client:
        sent = ["hello", b"\x00\xff", "", b"", "Grüße, 世界 🌍", "x" * 200, b"y" * 70_000]
        for number, message in enumerate(sent, 1):
            await client.send(message)
            expect(await client.recv(), f'{{"count": {number}}}', f"reply to {message[:20]!r}")


@case
async def a_thousand_in_one_go_are_answered_in_order():
    async with Daemon() as daemon, daemon.connect() as client:

        async def send():
            for number in range(1000):
                await client.send(f"message {number}")

        sender = asyncio.create_task(send())
        for number in range(1, 1001):
            expect(await client.recv(), f'{{"count": {number}}}', "reply")
        await sender


@case
async def the_path_works_without_its_last_slash():
    async with Daemon() as daemon, daemon.connect(path="/ws/chat") as client:
        await client.send("hello")
        expect(await client.recv(), '{"count": 1}', "reply")


@case
async def another_path_can_be_chosen():
    async with Daemon("--ws-path", "/live/") as daemon:
        for path in ("/live/", "/live"):
            async with daemon.connect(path=path) as client:
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', f"reply on {path}")


@case
async def the_reply_is_one_text_frame_of_these_bytes():
    async with Daemon() as daemon, await Raw.open(daemon.port) as raw:
        await raw.send(frame(BINARY, b"\x01\x02"))
        got = await raw.frame()
        expect(got.head + got.payload, b'\x81\x0c{"count": 1}', "the reply's bytes")


@case
async def fragments_make_one_message():
    async with Daemon() as daemon, await Raw.open(daemon.port) as raw:
        await raw.send(frame(TEXT, "he", final=False))
        await raw.send(frame(CONTINUATION, "", final=False))
        await raw.send(frame(PING, "in between"))
        await raw.send(frame(CONTINUATION, "llo"))
        pong = await raw.frame()
        expect((pong.opcode, pong.payload), (PONG, b"in between"), "the pong in between")
        expect(await raw.text(), '{"count": 1}', "reply")


@case
async def pings_and_pongs_are_not_counted():
    async with Daemon() as daemon, daemon.connect() as client:
        await (await client.ping(b"are you there"))
        await client.pong(b"unasked")
        await client.send("hello")
        expect(await client.recv(), '{"count": 1}', "reply")


@case
async def quit_says_goodbye_and_is_not_counted():
    async with Daemon() as daemon:
        for word in ("quit", "quit\n", "quit\r\n", "quit \t\n"):
            async with daemon.connect() as client:
                await client.send("one")
                await client.send("two")
                await client.send(word)
                expect(await client.recv(), '{"count": 1}', "first reply")
                expect(await client.recv(), '{"count": 2}', "second reply")
                expect(await client.recv(), '{"bye": true, "total": 2}', f"reply to {word!r}")
                try:
                    expect(await client.recv(), None, "a message after the goodbye")
                except websockets.ConnectionClosedOK:
                    pass
                expect(client.close_code, 1000, f"close code after {word!r}")
                expect(client.close_reason, "quit command received", "close reason")


@case
async def quit_as_the_first_word_has_total_0():
    async with Daemon() as daemon, daemon.connect() as client:
        await client.send("quit")
        expect(await client.recv(), '{"bye": true, "total": 0}', "goodbye")


@case
async def what_only_looks_like_quit_is_counted():
    words = ("Quit", " quit", "quit!", "quitter", "qui", "q u i t", b"quit")
    async with Daemon() as daemon, daemon.connect() as client:
        for number, word in enumerate(words, 1):
            await client.send(word)
            expect(await client.recv(), f'{{"count": {number}}}', f"reply to {word!r}")


@case
async def nothing_after_quit_is_answered():
    # One packet holds a message, the quit and a message behind it.
    async with Daemon() as daemon, await Raw.open(daemon.port) as raw:
        await raw.send(frame(TEXT, "one") + frame(TEXT, "quit") + frame(TEXT, "late"))
        expect(await raw.text(), '{"count": 1}', "first reply")
        expect(await raw.text(), '{"bye": true, "total": 1}', "goodbye")
        got = await raw.frame()
        expect((got.opcode, got.close_code), (CLOSE, 1000), "what follows the goodbye")
        await raw.send(close(1000))
        expect(await raw.at_end(), True, "the server closes the connection")


@case
async def the_replies_to_one_packet_leave_in_one_write():
    # 100 messages in one packet; the first read must have all 100 replies. Were they written one
    # by one, some of 100 tries would see less.
    replies = b"".join(
        bytes([0x81, len(text)]) + text
        for text in (b'{"count": %d}' % number for number in range(1, 101))
    )
    async with Daemon("--workers", "1", "--no-access-log") as daemon:

        def attempt():
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as plain:
                plain.sendall(upgrade())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += plain.recv(1)
                plain.sendall(frame(TEXT, "hello") * 100)
                return plain.recv(65536)

        for number in range(100):
            found = await asyncio.to_thread(attempt)
            expect(found[:40], replies[:40], "the first replies")
            expect(len(found), len(replies), f"bytes of the first read, try {number}")


run()
