"""Cases: k6.js, judged by its own thresholds, which become its exit code.

Not here: the script itself, which is for anybody with k6 and a server.
"""

from tool import HERE, REPORTS, find, tool

from harness import Daemon, case, note, require, run  # noqa: E402
from scrape import scrape  # noqa: E402

VUS = 200
SECONDS = 15


@case(seconds=150)
async def its_thresholds_hold():
    k6 = find("k6", beside_python=True)
    REPORTS.mkdir(parents=True, exist_ok=True)
    async with Daemon("--no-access-log") as daemon:
        printed = await tool(
            k6,
            "run",
            "--no-usage-report",
            "--quiet",
            "--no-color",
            "-e", f"URL={daemon.url()}",
            "-e", f"VUS={VUS}",
            "-e", f"SECONDS={SECONDS}",
            HERE / "k6.js",
            seconds=120,
        )
        (REPORTS / "k6.txt").write_text(printed, encoding="utf-8")
        for line in printed.splitlines():
            if line.strip().startswith(("counted.", "resumed.", "reply_ms.", "checks_succeeded.")):
                note(line.strip())
        # Its word against ours: every message it sent was received.
        metrics = await scrape(daemon)
        require(metrics.value("ws_total_messages_total") >= VUS * SECONDS, "k6 hardly said a word")
        require(metrics.value("revolve_resumes_total") >= VUS, "k6 hardly came back")


@case(seconds=60)
async def a_server_that_counts_wrongly_does_not_pass():
    """An echo in the counter's place: thresholds that cannot fail would prove nothing."""
    k6 = find("k6", beside_python=True)
    async with Daemon("--no-access-log", "--app", "echo") as daemon:
        printed = await tool(
            k6,
            "run",
            "--no-usage-report",
            "--quiet",
            "-e", f"URL={daemon.url()}",
            "-e", "VUS=2",
            "-e", "SECONDS=3",
            HERE / "k6.js",
            seconds=50,
            may_fail=True,
        )
        require("thresholds on metrics" in printed, f"k6 was content: {printed[-800:]}")


if __name__ == "__main__":
    run()
