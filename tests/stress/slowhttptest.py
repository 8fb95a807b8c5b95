"""Cases: slowhttptest's attacks, while a client that behaves is served.

A slow head is cut by our own deadline and told 408, a slow body is not waited for, a slow reader
holds nothing here that the kernel does not hold for it.
"""

import asyncio
import csv

from tool import REPORTS, Bystander, find, tool

from harness import Daemon, case, expect, note, require, run, until  # noqa: E402
from scrape import scrape  # noqa: E402

CONNECTIONS = 200
DEADLINE = 3


async def attack(daemon, name, *options, path="/ws/chat/", seconds=20):
    """Runs it; returns the rows of its report: seconds, closed, pending, connected, available."""
    program = find("slowhttptest")
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / name
    printed = await tool(
        program,
        "-c", CONNECTIONS,
        "-r", CONNECTIONS,
        "-l", seconds,
        # A probe of its own that waits so long for an answer says whether the service is there.
        "-p", 5,
        "-u", f"http://127.0.0.1:{daemon.port}{path}",
        "-g", "-o", report,
        *options,
        seconds=seconds + 60,
    )
    require("Exit status:" in printed, f"no verdict: {printed[-500:]}")
    with open(report.with_suffix(".csv"), encoding="ascii") as file:
        rows = [[int(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    require(rows, "its report is empty")
    for row in rows:
        require(row[4] > 0, f"not available in second {row[0]}")
    seconds_taken, closed, _, connected, _ = rows[-1]
    note(f"{name}: {closed} closed, {connected} connected after {seconds_taken} s")
    return printed


@case(seconds=120)
async def slow_heads_meet_the_deadline():
    async with Daemon("--no-access-log", "--timeout-handshake", str(DEADLINE)) as daemon:
        async with Bystander(daemon):
            printed = await attack(daemon, "slow-head", "-H", "-i", 1, "-x", 24)
        require("No open connections left" in printed, f"some stayed: {printed[-600:]}")
        rejected = (await scrape(daemon)).value("revolve_rejected_total", reason="head_timeout")
        # Each of them, by 408; its probe besides may be one more.
        require(CONNECTIONS <= rejected <= CONNECTIONS + 5, f"{rejected} were told 408")


@case(seconds=120)
async def slow_bodies_are_not_waited_for():
    async with Daemon("--no-access-log", "--timeout-handshake", str(DEADLINE)) as daemon:
        async with Bystander(daemon):
            printed = await attack(daemon, "slow-body", "-B", "-i", 1, "-s", 8192)
        require("No open connections left" in printed, f"some stayed: {printed[-600:]}")
        rejected = (await scrape(daemon)).value("revolve_rejected_total", reason="head_timeout")
        expect(rejected, 0, "told 408, although the head was there at once")


@case(seconds=120)
async def slow_readers_hold_nothing():
    async with Daemon("--no-access-log") as daemon:
        async with Bystander(daemon):
            slow = ("-X", "-w", 100, "-y", 200, "-n", 5, "-z", 10)
            attacking = asyncio.create_task(
                attack(daemon, "slow-read", *slow, path="/metrics", seconds=30)
            )

            async def has_let_go():
                metrics = await scrape(daemon)
                accepted = metrics.value("revolve_accepts_total")
                # The bystander, this scrape, and the tool's probe may be there.
                return accepted >= CONNECTIONS and metrics.value("revolve_connections") <= 4

            await until(has_let_go, 60, "all slow readers let go of")
            await attacking


if __name__ == "__main__":
    run()
