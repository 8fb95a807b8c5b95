"""Cases: k6.js, judged by its own thresholds, which become its exit code; over TLS too, against the build with that feature.

Not here: the script itself, which is for anybody with k6 and a server.
"""

import os

from tool import HERE, REPORTS, find, tool

from harness import ROOT, Daemon, case, note, require, run  # noqa: E402
from scrape import scrape  # noqa: E402

VUS = 200
SECONDS = 15
CERTIFICATE = ROOT / "tests" / "tls" / "certificates" / "ecdsa"


async def k6(url, vus, seconds, *more, may_fail=False):
    """Runs the script against a server; what was printed."""
    settings = {"URL": url, "VUS": vus, "SECONDS": seconds}
    given = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    return await tool(
        find("k6", beside_python=True),
        "run",
        "--no-usage-report",
        "--quiet",
        "--no-color",
        *given,
        *more,
        HERE / "k6.js",
        seconds=seconds + 100,
        may_fail=may_fail,
    )


@case(seconds=150)
async def its_thresholds_hold():
    REPORTS.mkdir(parents=True, exist_ok=True)
    async with Daemon("--no-access-log") as daemon:
        printed = await k6(daemon.url(), VUS, SECONDS)
        (REPORTS / "k6.txt").write_text(printed, encoding="utf-8")
        for line in printed.splitlines():
            if line.strip().startswith(("counted.", "resumed.", "reply_ms.", "checks_succeeded.")):
                note(line.strip())
        # Its word against ours: every message it sent was received.
        metrics = await scrape(daemon)
        require(metrics.value("ws_total_messages_total") >= VUS * SECONDS, "k6 hardly said a word")
        require(metrics.value("revolve_resumes_total") >= VUS, "k6 hardly came back")


@case(seconds=150)
async def they_hold_over_tls():
    pair = ("--ssl-certfile", f"{CERTIFICATE}.pem", "--ssl-keyfile", f"{CERTIFICATE}.key")
    async with Daemon("--no-access-log", *pair, binary=os.environ["FEATURES_BINARY"]) as daemon:
        # The certificate is the tests' own, which k6 cannot be told.
        url = daemon.url().replace("ws://", "wss://")
        printed = await k6(url, VUS // 2, SECONDS // 2, "--insecure-skip-tls-verify")
        for line in printed.splitlines():
            if line.strip().startswith(("counted.", "resumed.", "checks_succeeded.")):
                note(line.strip())


@case(seconds=120)
async def a_server_that_counts_wrongly_does_not_pass():
    """An echo in the counter's place: thresholds that cannot fail would prove nothing."""
    async with Daemon("--no-access-log", "--app", "echo") as daemon:
        printed = await k6(daemon.url(), 2, 3, may_fail=True)
        require("thresholds on metrics" in printed, f"k6 was content: {printed[-800:]}")


if __name__ == "__main__":
    run()
