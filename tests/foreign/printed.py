"""Cases: what the documents show is what is printed: the first lines of the daemon, and the session by
Python's `websockets` in docs/protocol.md. (websocat's, in the README, is in websocat_session.py.)
"""

import asyncio
import re
import subprocess
import sys

from harness import ROOT, Daemon, case, expect, require, run

MESSAGE = re.compile(r"^\S+ \S+ +\[revolve\] (.*)$")


def block(document, language, containing):
    """The block of code in a document that contains a text."""
    text = (ROOT / document).read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    found = [block for block in blocks if containing in block]
    expect(len(found), 1, f"blocks of {document} with {containing!r}")
    return found[0]


def shape(line):
    """A line without what is another machine's: its numbers, and plurals."""
    return re.sub(r"\b(reactor)s?\b", r"\1", re.sub(r"\d+(\.\d+)?", "N", line))


@case
async def the_first_lines():
    async with Daemon() as daemon:
        await daemon.stop()
        matched = [MESSAGE.match(line) for line in daemon.lines()]
    printed = [shape(found.group(1)) for found in matched if found]
    for document in ("README.md", "docs/operations.md"):
        for line in block(document, "text", "listening on").splitlines():
            # Whether a warning is printed, and what it advises, depends on the machine's memory.
            if line != "…" and "of this machine:" not in line:
                require(shape(line) in printed, f"{document} shows {line!r}; it printed {printed}")


@case
async def the_session_by_python():
    source = block("docs/protocol.md", "python", "websockets.sync")
    wanted = re.findall(r"print\(.*\) +# (.*)", source)
    expect(len(wanted), 3, "lines that the document says are printed")
    async with Daemon() as daemon:
        source = source.replace("127.0.0.1:8000", f"127.0.0.1:{daemon.port}")
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", source], capture_output=True, timeout=20
        )
        expect(done.returncode, 0, f"the exit code ({done.stderr.decode()!r})")
        session_id = re.compile(r'"session_id": "[^"]*"')
        printed = session_id.sub('"session_id": "…"', done.stdout.decode()).splitlines()
        expect(printed, wanted, "what is printed")


run()
