"""Cases: wall clocks that say what no text can hold. None of them ends anything.

The clock is faked for the daemon alone: a library of a few lines, built here with the C compiler that
Rust links with, answers for CLOCK_REALTIME. The monotonic clock, by which everything happens, is the
machine's.

Not here: a monotonic clock that jumps, which no kernel has.
"""

import contextlib
import json
import pathlib
import subprocess
import tempfile

from harness import Daemon, case, expect, require, run
from raw import Raw

FAKE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, at);
    if (code == 0 && clock == CLOCK_REALTIME) {
        at->tv_sec = atoll(getenv("WALL_CLOCK_SECONDS"));
    }
    return code;
}
"""

# Seconds since 1970, and how every text of that time begins.
CLOCKS = (
    (-(2**62), "1970-01-01T00:00:00"),
    (-315_619_200, "1970-01-01T00:00:00"),  # 1960
    (-1, "1970-01-01T00:00:00"),
    (0, "1970-01-01T00:00:00"),
    (253_402_300_799, "9999-12-31T23:59:59"),
    (253_402_300_800, "9999-12-31T23:59:59"),
    (316_538_236_800, "9999-12-31T23:59:59"),  # 12000
    (2**62, "9999-12-31T23:59:59"),
)


@contextlib.contextmanager
def fake_clock():
    """The library that answers for the clock; its path."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = pathlib.Path(folder, "clock.c"), pathlib.Path(folder, "clock.so")
        source.write_text(FAKE)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60
        )
        yield str(library)


@case(seconds=90)
async def any_wall_clock_is_served_under():
    with fake_clock() as library:
        for seconds, shown in CLOCKS:
            for form in ("text", "json"):
                extra = {"LD_PRELOAD": library, "WALL_CLOCK_SECONDS": str(seconds)}
                options = ("--heartbeat", "0.1", "--log-format", form, "--workers", "2")
                async with Daemon(*options, extra=extra) as daemon:
                    async with await Raw.connect(daemon.port) as raw:
                        answer = await raw.ask("/healthz")
                        expect(answer.status, 200, f"GET /healthz at {seconds}")
                        date = answer.headers["date"]
                        require(shown[:4] in date and date.endswith(" GMT"), f"Date: {date}")
                        # A refusal has a date as well.
                        expect((await raw.ask("/nowhere")).status, 404, f"GET /nowhere at {seconds}")
                    async with daemon.connect() as client:
                        await client.send("counted")
                        heard = {}
                        while not {"count", "ts"} <= heard.keys():
                            heard |= json.loads(await client.recv())
                        expect(heard["count"], 1, f"the count at {seconds}")
                        require(heard["ts"].startswith(shown), f"a heartbeat at {heard['ts']}")
                        # It goes on beating.
                        expect(list(json.loads(await client.recv())), ["ts"], "the next beat")
                    await daemon.stop()
                    lines = [line for line in daemon.lines() if "WebSocket accepted" in line]
                    expect(len(lines), 1, "lines of the access log")
                    require(shown in lines[0], f"at {seconds} the log says {lines[0]}")


run()
