"""The Autobahn fuzzing client, as install.sh has installed it, against --app echo.

Three cases, each with its daemon: `groups_1_to_10` (framing, pings, reserved bits, opcodes, fragments,
UTF-8, closing, sizes), `groups_1_to_10_over_tls`, the same encrypted (the build needs the feature `tls`), and
`groups_12_and_13` (compression; the feature `deflate`).
Every case of the suite must be OK, or INFORMATIONAL where the suite knows no right answer: neither
NON-STRICT nor UNIMPLEMENTED nor FAILED, and none without a result.

The suite waits more than it works, and its client is slow: the cases are dealt out among several
client processes. Reports for reading are left under target/autobahn/reports.

Called by tests/run, a name at a time; the daemon and the runner are the foreign suite's.
"""

import asyncio
import json
import os
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "foreign"))

from harness import ROOT, Daemon, case, note, require, run  # noqa: E402

INSTALLED = pathlib.Path(os.environ.get("AUTOBAHN", HERE.parents[1] / "target" / "autobahn"))
PYTHON = INSTALLED / "venv" / "bin" / "python"
WSTEST = INSTALLED / "venv" / "bin" / "wstest"

# Client processes. Twice two cores: half of the time of groups 1 to 10 is waiting for silence.
CLIENTS = 4

CERTIFICATE = ROOT / "tests" / "tls" / "certificates" / "ecdsa"

# All cases, as the suite itself numbers them.
LIST = """
import json, autobahntestsuite.case as c, autobahntestsuite.caseset as s
cases = s.CaseSet(c.CaseSetname, c.CaseBasename, c.Cases, c.CaseCategories, c.CaseSubCategories)
print json.dumps(cases.CasesById.keys())
"""


def number(name):
    """9.10.1 behind 9.2.1."""
    return [int(part) for part in name.split(".")]


async def cases_of(is_wanted):
    """The cases of the groups that are wanted, in the suite's order."""
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-c", LIST, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    names = json.loads(printed.decode().strip().splitlines()[-1])
    return sorted((name for name in names if is_wanted(number(name)[0])), key=number)


async def client(folder, url, cases):
    """One client process over its cases; returns their results. Ends it if we are ended."""
    folder.mkdir(parents=True)
    spec = folder / "spec.json"
    servers = [{"agent": "revolve", "url": url}]
    choice = {"cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    spec.write_text(json.dumps({"outdir": str(folder / "html"), "servers": servers} | choice))
    with open(folder / "log", "wb") as log:
        # In its folder, because it leaves files where it stands.
        process = await asyncio.create_subprocess_exec(
            *map(str, (PYTHON, "-u", WSTEST, "-m", "fuzzingclient", "-s", spec)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
        )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    index = folder / "html" / "index.json"
    return json.loads(index.read_text())["revolve"] if index.exists() else {}


async def suite(name, is_wanted, *options):
    """Runs those cases and judges their results."""
    began = time.monotonic()
    cases = await cases_of(is_wanted)
    require(len(cases) > 200, f"{len(cases)} cases: this is not the whole suite")
    reports = INSTALLED / "reports" / name
    shutil.rmtree(reports, ignore_errors=True)
    results = {}
    async with Daemon("--app", "echo", "--no-access-log", *options) as daemon:
        hands = (cases[first::CLIENTS] for first in range(CLIENTS))
        url = daemon.url()
        if "--ssl-certfile" in options:
            url = url.replace("ws://", "wss://")
        clients = (client(reports / f"client-{n}", url, hand) for n, hand in enumerate(hands))
        for found in await asyncio.gather(*clients):
            results |= found
    verdicts = {}
    wrong = []
    for name in cases:
        result = results.get(name, {})
        both = {result.get("behavior", "MISSING"), result.get("behaviorClose", "MISSING")}
        verdict = next((word for word in sorted(both) if word not in ("OK", "INFORMATIONAL")), None)
        if verdict is not None:
            wrong.append(f"{name} ({verdict}, close code {result.get('remoteCloseCode')})")
        verdict = verdict or result["behavior"]
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    note(f"{len(cases)} cases in {time.monotonic() - began:.0f} s: {counts}")
    require(not wrong, f"{', '.join(wrong[:20])}; the reports are in {reports}")


@case(seconds=1200)
async def groups_1_to_10():
    await suite("1-to-10", lambda group: group <= 10)


@case(seconds=1200)
async def groups_1_to_10_over_tls():
    pair = ("--ssl-certfile", f"{CERTIFICATE}.pem", "--ssl-keyfile", f"{CERTIFICATE}.key")
    await suite("1-to-10-over-tls", lambda group: group <= 10, *pair)


@case(seconds=1800)
async def groups_12_and_13():
    await suite("12-and-13", lambda group: group > 10, "--ws-per-message-deflate", "true")


run()
