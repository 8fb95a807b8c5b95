"""Cases: tsung.xml, 5,000 sockets at once, judged by the log that tsung writes.

Not here: the scenario, which is for anybody with tsung and a server on port 8000.
"""

import asyncio
import contextlib
import socket
import tempfile

from tool import HERE, REPORTS, find, tool

from harness import Daemon, Failure, case, expect, note, require, run  # noqa: E402
from scrape import scrape  # noqa: E402

SOCKETS = 5_000
# What each says: one, two, quit.
MESSAGES = 3


@contextlib.asynccontextmanager
async def epmd():
    """Erlang's name server, for this run alone: tsung's own would stay when tsung has ended. Yields
    the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        find("epmd"), "-address", "127.0.0.1", "-port", port, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        # It listens at once, or is gone at once.
        await asyncio.sleep(0.5)
        require(process.returncode is None, "epmd did not start")
        yield {"ERL_EPMD_PORT": port, "ERL_EPMD_ADDRESS": "127.0.0.1"}
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def totals(log):
    """The last total of each statistic in tsung.log: the last number of a counter's line."""
    found = {}
    for line in log.splitlines():
        if line.startswith("stats: "):
            name, *numbers = line.removeprefix("stats: ").split()
            if numbers and not name.startswith("{"):
                found[name] = float(numbers[-1])
    return found


async def watch(daemon, peak):
    while True:
        peak.append((await scrape(daemon)).value("ws_active_connections"))
        await asyncio.sleep(1)


@case(seconds=400)
async def five_thousand_sockets():
    program = find("tsung")
    REPORTS.mkdir(parents=True, exist_ok=True)
    async with Daemon("--no-access-log") as daemon, epmd() as environment:
        with tempfile.TemporaryDirectory(dir=REPORTS, prefix="tsung-") as folder:
            scenario = (HERE / "tsung.xml").read_text(encoding="utf-8")
            require('port="8000"' in scenario, "tsung.xml names another port")
            with open(f"{folder}/tsung.xml", "w", encoding="utf-8") as file:
                file.write(scenario.replace('port="8000"', f'port="{daemon.port}"'))
            peak = []
            watching = asyncio.create_task(watch(daemon, peak))
            try:
                command = ("-n", "-f", f"{folder}/tsung.xml", "-l", f"{folder}/log", "start")
                # It keeps a directory at home.
                await tool(program, *command, seconds=360, env=environment | {"HOME": folder})
            finally:
                watching.cancel()
            logs = sorted(REPORTS.glob(f"{folder.split('/')[-1]}/log/*/tsung.log"))
            if not logs:
                raise Failure("tsung wrote no tsung.log")
            log = logs[-1].read_text(encoding="utf-8")
        (REPORTS / "tsung.log").write_text(log, encoding="utf-8")
        found = totals(log)
        note(f"at most {max(peak):.0f} connections at once; totals {found}")
        expect(found.get("users_count"), SOCKETS, "users that began")
        expect(found.get("finish_users_count"), SOCKETS, "users that finished")
        expect(found.get("websocket_succ"), SOCKETS, "upgrades")
        expect(found.get("match"), SOCKETS * MESSAGES, "replies that were right")
        wrong = {name: count for name, count in found.items()
                 if name.startswith("error") or name in ("nomatch", "websocket_fail")}
        expect(wrong, {}, "what went wrong")
        expect(max(peak), SOCKETS, "connections at once")
        metrics = await scrape(daemon)
        expect(metrics.value("ws_total_messages_total"), SOCKETS * MESSAGES, "messages received")
        expect(metrics.value("ws_error_count_total"), 0, "WebSockets ended by an error")


if __name__ == "__main__":
    run()
