"""Somebody else's program against the daemon: finding it, running it, and, meanwhile, a client that
behaves and must be served.

Judges no report; k6.py, slowhttptest.py and tsung.py do, which call this. The daemon, and the
runner of cases, are the foreign suite's.
"""

import asyncio
import json
import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "foreign"))

from harness import Failure, expect, note  # noqa: E402

# Reports of the tools, for whoever wants to read more than the verdict.
REPORTS = HERE.parents[1] / "target" / "stress"


def find(program, beside_python=False):
    """Where a program is; a tool that is missing is a failure, not a pass."""
    found = shutil.which(program)
    if beside_python:
        found = shutil.which(program, path=os.path.dirname(sys.executable))
    if found is None:
        raise Failure(f"{program} is not installed; tests/run --only install/stress says why")
    return found


async def tool(*command, seconds, env=None, may_fail=False):
    """Runs a tool to its end; returns what it printed. Ends it if we are ended."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | (env or {}),
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = printed.decode(errors="replace")
    if process.returncode != 0 and not may_fail:
        print(text[-4000:])
        raise Failure(f"{command[0]} ended with {process.returncode}")
    return text


class Bystander:
    """A client that counts while others attack, on one connection after the other; each of its
    replies must be the next count.

    `async with Bystander(daemon):` around the attack.
    """

    def __init__(self, daemon):
        self.daemon = daemon
        self.count = 0
        self.connections = 0

    async def __aenter__(self):
        self._enough = asyncio.Event()
        self._task = asyncio.create_task(self._talk())
        return self

    async def __aexit__(self, kind, *_):
        self._enough.set()
        if kind is not None:
            self._task.cancel()
            return
        await self._task
        note(f"a bystander counted to {self.count} on {self.connections} connections meanwhile")

    async def _talk(self):
        while not self._enough.is_set():
            query = "?session_id=bystander&hello=1"
            async with self.daemon.connect(query, open_timeout=30) as client:
                self.connections += 1
                hello = json.loads(await client.recv())
                expect(hello["count"], self.count, "the count after a resume")
                for _ in range(50):
                    await client.send("one more")
                    # A heartbeat may come first.
                    while "count" not in (told := json.loads(await client.recv())):
                        pass
                    self.count += 1
                    expect(told["count"], self.count, "the bystander's count")
                    await asyncio.sleep(0.01)
