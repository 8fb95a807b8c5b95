"""Cases: one port has one daemon. Two that start at one moment, restarts, siblings of one daemon.

Not here: a port that has been in use for a while (command_line.py).
"""

import asyncio
import json
import os
import signal
import socket
import subprocess

from harness import BINARY, Daemon, case, environment, expect, note, require, run, until
from raw import Raw
from scrape import scrape

ROUNDS = 100

# Of this process alone, so that a port found free there stays free: other programs of this machine
# connect from 127.0.0.1. All of 127.0.0.0/8 is the loopback interface.
OWN = "127.77.{}.{}".format(*os.getpid().to_bytes(4, "big")[2:])

# Where the two listen: the same address, or one on all addresses and one on a single one.
PLACES = [(OWN, OWN), (OWN, OWN), ("0.0.0.0", OWN)]
WORKERS = ("1", "2", "16")


def free_port(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as holder:
        holder.bind((host, 0))
        return holder.getsockname()[1]


def has_ipv6():
    try:
        return free_port("::1") > 0
    except OSError:
        return False


if has_ipv6():
    PLACES += [("::1", "::1"), ("::", "::1")]


def start(host, port, workers):
    return subprocess.Popen(
        [BINARY, "--host", host, "--port", str(port), "--workers", workers],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )


async def healthz(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.split(b"\r\n", 1)[0]


async def one_round(number):
    hosts = PLACES[number % len(PLACES)]
    workers = WORKERS[number % len(WORKERS)]
    port = free_port(hosts[1])
    both = [start(host, port, workers) for host in hosts]
    what = f"round {number}, {' and '.join(hosts)}, {workers} workers"
    try:
        await until(
            lambda: any(one.poll() is not None for one in both), 10,
            f"{what}: one of the two ends (both serve)",
        )
        loser, winner = sorted(both, key=lambda one: one.poll() is None)
        error = (await asyncio.to_thread(loser.stderr.read)).decode()
        expect(loser.returncode, 1, f"{what}: exit code ({error!r})")
        expect(len(error.splitlines()), 1, f"{what}: lines of the one that ends ({error!r})")
        require(
            f":{port}: the port is in use; choose another with --port" in error,
            f"{what}: it ends with {error!r}",
        )
        first = (await asyncio.to_thread(winner.stderr.readline)).decode()
        require(first.rstrip().endswith("heartbeat every 30 s"), f"{what}: it begins with {first!r}")
        expect(await healthz(hosts[1], port), b"HTTP/1.1 200 OK", f"{what}: /healthz")
        winner.send_signal(signal.SIGTERM)
        expect(await asyncio.to_thread(winner.wait, 15), 0, f"{what}: the other's exit code")
        return both.index(winner)
    finally:
        for one in both:
            if one.poll() is None:
                one.kill()
                one.wait()
            one.stderr.close()


@case(seconds=180)
async def of_two_that_start_at_one_moment_one_serves():
    seconds = 0
    for number in range(ROUNDS):
        seconds += await one_round(number)
    note(f"{ROUNDS} rounds; the one started second served in {seconds} of them")


@case
async def several_that_pick_a_free_port_pick_different_ones():
    async with asyncio.TaskGroup() as group:
        daemons = [Daemon("--workers", "4") for _ in range(8)]
        for daemon in daemons:
            group.create_task(daemon.__aenter__())
    expect(len({daemon.port for daemon in daemons}), 8, "ports of eight")
    for daemon in daemons:
        await daemon.stop()


@case
async def reactors_share_connections_about_evenly():
    # The first socket listens before its siblings do, and must get no more than they for it.
    for workers in (2, 16):
        async with Daemon("--workers", str(workers)) as daemon:
            each = 100
            sockets = [await Raw.connect(daemon.port) for _ in range(workers * each)]

            async def accepted():
                found = await scrape(daemon)
                counts = [
                    int(found.value("revolve_accepts_total", reactor=str(number)))
                    for number in range(workers)
                ]
                # Those that scrape are counted too.
                return counts if sum(counts) >= workers * each else None

            counts = await until(accepted, 10, "all are accepted")
            note(f"{sum(counts)} connections over {workers} reactors: {counts}")
            # A hash deals them out: half and twice the mean are five standard deviations away.
            require(each // 2 < min(counts) and max(counts) < each * 2, f"dealt out {counts}")
            for raw in sockets:
                await raw.__aexit__(None, None, None)


def in_state(port, state):
    """How many sockets of the IPv4 loopback have this local port and state (proc(5), net/tcp)."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)


@case
async def a_restart_need_not_wait_for_former_connections():
    time_wait, fin_wait = "06", ("04", "05")
    async with Daemon("--workers", "3") as daemon:
        port = daemon.port
        for number in range(20):
            async with daemon.connect("?session_id=leaves") as client:
                await client.send("quit")
                await client.recv()
                # The daemon closes first, so its side is the one that waits.
                await client.wait_closed()
        await until(lambda: in_state(port, time_wait) > 0, 5, "connections in TIME_WAIT")
    async with Daemon("--workers", "3", "--port", str(port)) as daemon:
        expect(daemon.port, port, "the port after a restart")
        note(f"restarted over {in_state(port, time_wait)} connections in TIME_WAIT")
        # And one that ends at once, with clients that do not.
        clients = [await daemon.connect() for _ in range(20)]
        for client in clients:
            client.transport.pause_reading()
        daemon.kill()
    note(f"and over {sum(in_state(port, state) for state in fin_wait)} half-closed ones")
    async with Daemon("--workers", "1", "--port", str(port)) as daemon:
        expect(daemon.port, port, "the port after a kill")
        async with daemon.connect() as client:
            await client.send("hello")
            expect(json.loads(await client.recv()), {"count": 1}, "reply after a kill")
    for client in clients:
        client.transport.abort()


run()
