"""Cases: the exercises of docs/learning.md, with the lines that the document shows.

Times, ports and the way in which the kernel cuts a stream differ from run to run; what must be there
are the words.
"""

import asyncio
import re
import subprocess
import sys

from harness import ROOT, Daemon, case, expect, require, run

CLIENT = ROOT / "docs" / "exercises" / "client.py"
TRACE = ("--no-access-log", "--log-level", "trace")


async def exercise(name, *options, seconds=30):
    """The trace of one exercise, until the reactor has let go of its last connection."""
    async with Daemon(*TRACE, *options) as daemon:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(CLIENT), name, str(daemon.port)],
            capture_output=True,
            timeout=seconds,
        )
        expect(done.returncode, 0, f"the exit code ({done.stderr.decode()!r})")
        await daemon.stop()
        told = "\n".join(daemon.lines())
    document = (ROOT / "docs" / "learning.md").read_text()
    require(f"client.py {name}" in document, f"docs/learning.md has the exercise {name}")
    return told


def in_order(told, *patterns):
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(told, at)
        require(found is not None, f"the trace tells {pattern!r}, behind the ones before")
        at = found.start()


@case
async def a_takeover():
    told = await exercise("takeover", "--workers", "1")
    in_order(
        told,
        r"#0\.1 readable: .* → count 1",
        r"#1\.2 readable: .*takes its session over from #0\.1; upgrade: resumed session, count 1",
        r"#0\.1: closed by us: 4001",
        r"#1\.2 .* → count 2",
        r"#1\.2 .*closed by us: 1000",
    )


@case
async def a_burst_of_tiny_messages():
    told = await exercise("burst", "--workers", "1")
    in_order(told, r"4096 × text, .*spent: goes on next turn", r"#0\.1 goes on: .* → count 10000")


@case
async def a_half_close():
    told = await exercise("half-close", "--workers", "1")
    in_order(told, r"text 5 B → count 1; 14 B in one write", r"closed by the peer: 1006; ended")


@case
async def a_hand_over():
    told = await exercise("hand-over", "--workers", "2")
    in_order(told, r"→ count 16; upgrade: resumed session, count 14")
    # Which connections are handed over is the kernel's choice; each that is arrives with its bytes.
    sent = re.findall(r"handed over to reactor 1, with (\d+) B", told)
    heard = re.findall(r"handed to us by mail with (\d+) B", told)
    expect(sorted(sent), sorted(heard), "bytes that travelled")


@case(seconds=60)
async def a_stalled_reader():
    options = ("--workers", "1", "--app", "echo", "--max-send-buffer", "65536")
    told = await exercise("stall", *options, seconds=50)
    in_order(
        told,
        r"the socket is full, .* wait; .*throttled: not read until its backlog shrinks",
        r"alarm: closed by us: 1008",
        r"discarded; .*ended; let go of",
    )


run()
