"""The rules of packaging/prometheus and the dashboard of packaging/grafana: promtool checks and tries the rules; every metric
that either of them names is one of the real program's; and a real Prometheus that scrapes two real servers evaluates all
rules and all panels.

The servers: one with TLS, a limit and a store on the disk, one with a Redis, for tasks too. Together they have every family that there is.
Called by tests/run, which has seen to it that redis-server is there, and where Prometheus is ($PROMETHEUS).
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

import websockets

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

import harness
from harness import PATH, ROOT, Daemon, case, expect, note, require, run, until

PROGRAMS = pathlib.Path(os.environ["PROMETHEUS"])
RULES = ROOT / "packaging/prometheus/alerts.yml"
TRIED = ROOT / "tests/packaging/alerts.yml"
CERTIFICATES = ROOT / "tests/tls/certificates"

# Metrics of Prometheus itself.
OTHERS = {"up"}


def promtool(*arguments):
    done = subprocess.run([PROGRAMS / "promtool", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def rules():
    """The expressions of the alerts, by name."""
    text = RULES.read_text()
    found = dict(re.findall(r"- alert: (\w+)\n\s+expr: (.*?)\n +(?:for|labels):", text, re.S))
    require(len(found) == text.count("- alert:"), "not every alert was read")
    return {name: " ".join(expr.removeprefix(">-").split()) for name, expr in found.items()}


def panels():
    """The expressions of the dashboard, with the titles of their panels, as Grafana would ask for them."""
    dashboard = json.loads((ROOT / "packaging/grafana/dashboard.json").read_text())
    asked = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            require("$" not in expr, f"a variable that is not known: {expr}")
            asked.append((panel["title"], expr))
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in dashboard["panels"]]
    expect(len(set(places)), len(places), "panels at places of their own")
    require(len(asked) > 30, f"only {len(asked)} expressions")
    return asked


def names(expression):
    """The metrics in an expression."""
    plain = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:up|(?:revolve|ws|process)_\w+)\b", plain))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def program(*command):
    """Runs it until the block ends."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)


def get(port, path, **query):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with opener.open(url, timeout=10) as response:
        return response.read().decode()


@contextlib.asynccontextmanager
async def two_servers(folder):
    """The ports at which their metrics are, and clients that have counted on both."""
    (folder / "store").mkdir(mode=0o700)
    redis = folder / "redis.sock"
    admin = free_port()
    one = (
        *("--store", f"file:{folder}/store", "--limit-concurrency", "100", "--admin", f"127.0.0.1:{admin}"),
        *("--ssl-certfile", str(CERTIFICATES / "rsa.pem"), "--ssl-keyfile", str(CERTIFICATES / "rsa.key")),
    )
    bare = ("--port", "0", "--unixsocket", str(redis), "--save", "", "--dir", str(folder))
    with program("redis-server", *bare):
        await until(redis.exists, 10, "that Redis listens")
        async with Daemon(*one) as first, Daemon("--store", f"unix:{redis}", "--broker", f"unix:{redis}") as second:
            context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
            secure = f"wss://localhost:{first.port}{PATH}"
            for _ in range(3):
                async with websockets.connect(secure, ssl=context, proxy=None) as client:
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply")
                async with second.connect() as client:
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply")
            yield admin, second.port


@case
async def promtool_checks_and_tries_every_rule():
    code, said = promtool("check", "rules", "--lint-fatal", str(RULES))
    expect(code, 0, f"check rules: {said}")
    code, said = promtool("test", "rules", str(TRIED))
    expect(code, 0, f"test rules: {said}")
    tried = TRIED.read_text()
    for name in rules():
        require(f'alertname="{name}"' in tried, f"{name} is not tried")
    # It does notice an alert that does not fire.
    with tempfile.TemporaryDirectory() as folder:
        broken = pathlib.Path(folder, "alerts.yml")
        broken.write_text(RULES.read_text().replace("revolve_panics_total[10m]) > 0", "revolve_panics_total[10m]) > 99"))
        other = pathlib.Path(folder, "tried.yml")
        other.write_text(tried.replace("../../packaging/prometheus/alerts.yml", str(broken)))
        code, said = promtool("test", "rules", str(other))
        require(code != 0 and "RevolvePanics" in said, f"a rule that never fires passes: {said}")


@case(seconds=60)
async def every_metric_that_is_named_is_one_of_the_programs():
    with tempfile.TemporaryDirectory() as folder:
        async with two_servers(pathlib.Path(folder)) as ports:
            text = "".join([await asyncio.to_thread(get, port, "/metrics") for port in ports])
    there = set(re.findall(r"^(\w+)[ {]", text, re.M)) | OTHERS
    used = {name: names(expr) for name, expr in rules().items()}
    for title, expr in panels():
        used.setdefault(f"panel {title}", set()).update(names(expr))
    for place, wanted in used.items():
        require(wanted, f"{place} names no metric")
        expect(wanted - there, set(), f"metrics of {place} that the program does not have")
    reasons = set(re.findall(r'^revolve_rejected_total{.*reason="(\w+)"', text, re.M))
    for name, expr in rules().items():
        for alternatives in re.findall(r'reason=~"([^"]*)"', expr):
            expect(set(alternatives.split("|")) - reasons, set(), f"reasons of {name} that there are not")
    note(f"{len(used)} alerts and panels, {len(set().union(*used.values()))} metrics")


@case(seconds=90)
async def prometheus_evaluates_all_rules_and_panels():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        async with two_servers(folder) as ports:
            targets = json.dumps([f"127.0.0.1:{port}" for port in ports])
            (folder / "prometheus.yml").write_text(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: [{RULES}]\n"
                "scrape_configs:\n"
                f"  - {{job_name: revolve, static_configs: [{{targets: {targets}}}]}}\n"
            )
            web = free_port()
            with program(
                str(PROGRAMS / "prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{web}",
            ):

                async def ask(path, **query):
                    try:
                        return json.loads(await asyncio.to_thread(get, web, path, **query))["data"]
                    except urllib.error.URLError:
                        return None

                async def scraped():
                    # Rates need two of them.
                    query = "min(count_over_time(up[1m])) >= 3 and min(up) == 1 and count(up) == 2"
                    data = await ask("/api/v1/query", query=query)
                    return data and data["result"]

                await until(scraped, 60, "that Prometheus has scraped both")

                async def evaluated():
                    groups = (await ask("/api/v1/rules"))["groups"]
                    found = [rule for group in groups for rule in group["rules"]]
                    return found if all(rule["health"] != "unknown" for rule in found) else None

                found = await until(evaluated, 30, "that all rules are evaluated")
                expect({rule["name"] for rule in found}, set(rules()), "the rules")
                for rule in found:
                    expect((rule["health"], rule.get("lastError")), ("ok", None), rule["name"])
                for title, expr in panels():
                    data = await ask("/api/v1/query", query=expr)
                    # Nothing was refused here.
                    is_empty = expr.endswith("> 0")
                    require(data["result"] or is_empty, f"the panel {title} is empty: {expr}")


run()
