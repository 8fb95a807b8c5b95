"""Cases: the kernel's side of an event loop. The process stands still while clients speak (a stopped
process, a suspended machine), and urgent data, at which a read stops.

What is there is heard before anybody is judged late. Every order of events is the simulation's
(tests/simulation/pause.rs); here the kernel itself keeps the bytes and tells the edges.
"""

import asyncio
import os
import resource
import signal
import socket

from harness import Daemon, case, expect, note, run, some_at_a_time
from raw import PING, PONG, TEXT, Raw, frame, request, upgrade

# More than the 1,024 events that one poll tells.
CLIENTS = 1300


def descriptors(wanted):
    """As many as it takes, if the hard limit allows; how many clients there can be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - 200)


def urgent(plain):
    """One byte of urgent data, past the stream's own buffer, which is empty."""
    with socket.socket(fileno=os.dup(plain.fileno())) as twin:
        twin.send(b"!", socket.MSG_OOB)


@case(seconds=90)
async def who_answered_while_the_process_stood_still_is_not_late():
    count = descriptors(CLIENTS)
    options = ("--workers", "1", "--no-access-log", "--ws-ping-interval", "1")
    late = ("--ws-ping-timeout", "5", "--timeout-handshake", "6", "--heartbeat", "0")
    async with Daemon(*options, *late) as daemon:
        clients = []

        async def open_one(_):
            clients.append(await Raw.open(daemon.port))

        await some_at_a_time(count, open_one)
        kept = await Raw.connect(daemon.port)
        expect((await kept.ask("/healthz")).status, 200, "a first request")
        half = await Raw.connect(daemon.port)
        head = upgrade()
        await half.send(head[:40])
        for client in clients:
            expect((await client.frame()).opcode, PING, "a ping")
        daemon.send_signal(signal.SIGSTOP)
        for client in clients:
            await client.send(frame(PONG))
        await half.send(head[40:])
        await kept.send(request("/healthz"))
        # Longer than the pong, the head and the next request may take.
        await asyncio.sleep(7)
        daemon.send_signal(signal.SIGCONT)
        expect((await kept.answer()).status, 200, "a request that was made in time")
        expect((await half.answer()).status, 101, "a head that was whole in time")
        for client in clients:
            await client.send(frame(TEXT, "hello"))
        for client in clients:
            expect(await client.text(), '{"count": 1}', "a pong that was sent in time")
        note(f"{count} clients")
        for client in [*clients, kept, half]:
            client.abort()


@case(seconds=60)
async def urgent_data_loses_no_message():
    # Sent while the process stands still, so that all of it is there when it looks.
    async with Daemon("--workers", "1", "--ws-ping-interval", "0", "--heartbeat", "0") as daemon:
        for _ in range(10):
            async with await Raw.open(daemon.port) as client:
                plain = client.writer.get_extra_info("socket")
                daemon.send_signal(signal.SIGSTOP)
                await client.send(frame(TEXT, "one"))
                urgent(plain)
                await client.send(frame(TEXT, "two"))
                await asyncio.sleep(0.05)
                daemon.send_signal(signal.SIGCONT)
                async with asyncio.timeout(5):
                    expect(await client.text(), '{"count": 1}', "before the urgent byte")
                    expect(await client.text(), '{"count": 2}', "behind it")
        # In the middle of a head, and with nothing behind it.
        async with await Raw.connect(daemon.port) as client:
            plain = client.writer.get_extra_info("socket")
            head = upgrade()
            daemon.send_signal(signal.SIGSTOP)
            await client.send(head[:30])
            urgent(plain)
            await client.send(head[30:])
            daemon.send_signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                expect((await client.answer()).status, 101, "a head with an urgent byte in it")
            urgent(plain)
            await client.send(frame(TEXT, "hello"))
            async with asyncio.timeout(5):
                expect(await client.text(), '{"count": 1}', "a message behind it")


run()
