"""Cases: the command line. Help, version, one line for every mistake, exit codes 2 and 1.

Not here: what an option does once it is accepted (the file of its subject).
"""

import asyncio
import re
import socket
import time

from harness import Daemon, case, command, expect, note, require, run, until
from raw import Raw

# As the issue names them.
OPTIONS = """
    --host --port --uds --workers --backlog --ws-path --ws-max-size --ws-ping-interval --ws-ping-timeout
    --heartbeat --session-ttl --max-sessions --session-ids --limit-concurrency --timeout-handshake
    --timeout-graceful-shutdown --max-send-buffer --log-level --log-format --access-log
    --no-access-log --app --allowed-origins --limit-per-ip --ws-per-message-deflate
    --limit-sessions-per-ip --ws-subprotocols --timeout-keep-alive --page --no-page
    --config --drain-over --log-file --check-config --print-config
    --page-for --metrics --no-metrics --offload-threads --slow-turn-ms --help --version
""".split()


def one_line(found, wanted_code, *names):
    """One line on stderr that holds each of `names`, nothing on stdout, and this exit code."""
    code, out, err = found
    expect(code, wanted_code, f"exit code ({err.strip()!r})")
    expect(out, "", "stdout")
    lines = err.splitlines()
    expect(len(lines), 1, f"lines on stderr ({err!r})")
    for name in names:
        require(name in lines[0], f"{name!r} is not named in {lines[0]!r}")


@case
async def help_names_every_option():
    code, out, err = command("--help")
    expect((code, err), (0, ""), "exit code and stderr of --help")
    for option in OPTIONS:
        # "--access-log/--no-access-log" and "--[no-]access-log" name both.
        plain = option.replace("--no-", "no-")
        require(option in out or plain in out, f"--help says nothing of {option}")
    widest = max(out.splitlines(), key=len)
    require(len(widest) <= 100, f"a line of {len(widest)} columns in --help: {widest}")
    expect(command("-h"), (0, out, ""), "-h")


@case
async def version():
    code, out, err = command("--version")
    expect((code, err), (0, ""), "exit code and stderr of --version")
    build = r"(commit [0-9a-f]{12}(, changed)?|no commit known); features: daemon(, deflate)?"
    require(re.fullmatch(rf"revolve \d+\.\d+\.\d+ \({build}\)\n", out), f"--version says {out!r}")
    note(out.strip())


@case
async def usage_errors_are_one_line_and_exit_2():
    for options, names in (
        (("--nonsense",), ("--nonsense",)),
        (("-x",), ("-x",)),
        (("stray",), ("stray",)),
        (("--port",), ("--port",)),
        (("--port", "99999"), ("--port", "99999")),
        (("--port", "-1"), ("--port", "-1")),
        (("--port", "http"), ("--port", "http")),
        (("--port=",), ("--port",)),
        (("--host", "not a host"), ("--host", "not a host")),
        (("--host", "300.1.1.1"), ("--host", "300.1.1.1")),
        (("--host", "127.0.0.1:80"), ("--host", "127.0.0.1:80")),
        (("--workers", "0"), ("--workers", "0")),
        (("--workers", "many"), ("--workers", "many")),
        (("--backlog", "0"), ("--backlog", "0")),
        (("--ws-path", "chat"), ("--ws-path", "chat")),
        (("--ws-path", "/healthz"), ("--ws-path", "/healthz", "not free")),
        (("--ws-path", "/ws/stats/"), ("--ws-path", "/ws/stats/", "not free")),
        (("--metrics=off",), ("--metrics",)),
        (("--ws-max-size", "0"), ("--ws-max-size", "0")),
        (("--ws-max-size", "16M"), ("--ws-max-size", "16M")),
        (("--ws-ping-interval", "-1"), ("--ws-ping-interval", "-1")),
        (("--ws-ping-timeout", "NaN"), ("--ws-ping-timeout", "NaN")),
        (("--heartbeat", "soon"), ("--heartbeat", "soon")),
        (("--heartbeat", "inf"), ("--heartbeat", "inf")),
        (("--session-ttl", "1e99"), ("--session-ttl", "1e99")),
        (("--max-sessions", "0"), ("--max-sessions", "0")),
        (("--session-ids", "maybe"), ("--session-ids", "maybe", "any", "issued")),
        (("--limit-concurrency", "none"), ("--limit-concurrency", "none")),
        (("--limit-sessions-per-ip", "0"), ("--limit-sessions-per-ip", "0")),
        (("--limit-sessions-per-ip", "10/m"), ("--limit-sessions-per-ip", "10/m")),
        (("--timeout-handshake", "0"), ("--timeout-handshake", "0")),
        (("--timeout-graceful-shutdown", "x"), ("--timeout-graceful-shutdown", "x")),
        (("--max-send-buffer", "0"), ("--max-send-buffer", "0")),
        (("--log-level", "loud"), ("--log-level", "loud", "info")),
        (("--log-format", "xml"), ("--log-format", "xml", "text", "json")),
        (("--allowed-origins", "*"), ("--allowed-origins", '"*"', "leave the option out")),
        (("--allowed-origins", "https://.example.com"), ("--allowed-origins", "https://*.")),
        (("--app", "chess"), ("--app", "chess", "counter", "echo")),
        (("--access-log=maybe",), ("--access-log",)),
        (("--ws-subprotocols", "a b"), ("--ws-subprotocols", "a b")),
        (("--timeout-keep-alive", "0"), ("--timeout-keep-alive", "0.001")),
        (("--ws-per-message-deflate", "maybe"), ("--ws-per-message-deflate", "true", "false")),
        # The release is built without it.
        (("--ws-per-message-deflate",), ("--ws-per-message-deflate", 'feature "deflate"')),
        (("--page=maybe",), ("--page",)),
        (("--page-for", "everyone"), ("--page-for", "everyone", "loopback", "any")),
    ):
        # The port in front, so that a mistake that is let through cannot meet another server.
        one_line(command("--port", "0", *options), 2, *names)


@case
async def control_characters_in_a_mistake_are_escaped():
    code, _, err = command("--app", "a\x1b[31m\nb")
    expect(code, 2, "exit code")
    require("\x1b" not in err, f"an escape sequence in {err!r}")
    expect(len(err.splitlines()), 1, f"lines on stderr ({err!r})")


@case
async def a_port_in_use_is_one_line_and_exit_1():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        one_line(command("--port", port), 1, port)


@case
async def a_port_in_use_by_another_revolve_too():
    # Listeners that share a port between reactors must not share it between two servers.
    async with Daemon() as daemon:
        found = await asyncio.to_thread(command, "--port", str(daemon.port), seconds=5)
        one_line(found, 1, str(daemon.port))


@case
async def the_environment_is_heard_and_a_flag_wins():
    async with Daemon(extra={"REVOLVE_APP": "echo"}) as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), "hello", "reply with REVOLVE_APP=echo")
    async with Daemon("--app", "counter", extra={"REVOLVE_APP": "echo"}) as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply with a flag against it")
    async with Daemon(extra={"REVOLVE_WS_PATH": "/from/env/"}) as daemon:
        async with daemon.connect(path="/from/env") as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply on REVOLVE_WS_PATH")


@case
async def words_in_the_environment_are_taken_as_people_write_them():
    extra = {
        "REVOLVE_APP": "ECHO",
        "REVOLVE_LOG_LEVEL": "INFO",
        "REVOLVE_LOG_FORMAT": "Json",
        "REVOLVE_PAGE": "0",
        "REVOLVE_ACCESS_LOG": "No",
        "REVOLVE_METRICS": "TRUE",
    }
    async with Daemon(extra=extra) as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), "hello", "reply with REVOLVE_APP=ECHO")
        async with await Raw.connect(daemon.port) as raw:
            expect((await raw.ask("/metrics")).status, 200, "metrics")
        async with await Raw.connect(daemon.port) as raw:
            expect((await raw.ask("/")).status, 404, "the page")
        text = "\n".join(daemon.lines())
        require(text.startswith('{"time"'), f"the log is JSON: {text[:100]}")
        require("accepted" not in text, "and has no line for each connection")


@case
async def a_bad_value_in_the_environment_names_its_variable():
    for variable, value in (
        ("REVOLVE_PORT", "http"),
        ("REVOLVE_WORKERS", "0"),
        ("REVOLVE_SESSION_IDS", "maybe"),
        ("REVOLVE_LOG_FORMAT", "xml"),
    ):
        options = () if variable == "REVOLVE_PORT" else ("--port", "0")
        found = command(*options, extra={variable: value}, seconds=5)
        one_line(found, 2, variable, value)


@case
async def what_it_says_at_the_start():
    async with Daemon("--workers", "3") as daemon:
        await asyncio.sleep(0.2)
        lines = daemon.lines()
        text = "\n".join(lines)
        for word in (f"127.0.0.1:{daemon.port}", f"ws://127.0.0.1:{daemon.port}/ws/chat/", "3"):
            require(word in text, f"nothing of {word} at the start: {text}")
        require(len(lines) <= 12, f"{len(lines)} lines at the start are not a few")
        for line in lines:
            note(line)


async def said_of_memory(*options):
    """The lines of the log about memory."""
    async with Daemon(*options) as daemon:
        await until(lambda: any("to stop: " in line for line in daemon.lines()), 10, "the last line")
        return [line for line in daemon.lines() if " memory: " in line]


@case
async def a_bound_above_the_machines_memory_is_a_warning_that_says_what_would_fit():
    # A hundred thousand messages of a GiB are more than the machine has, a hundred of a byte less.
    sizes = ("--ws-max-size", "1073741824", "--max-send-buffer", "1073741824")
    _, warning = await said_of_memory("--limit-concurrency", "100000", *sizes)
    require("WARN" in warning, f"it is a warning: {warning}")
    note(warning.split("] ")[1])
    fitting = re.search(r": ((--[a-z-]+ \d+ )+)would fit$", warning)
    require(fitting, f"it names options that would fit: {warning}")
    lines = await said_of_memory("--limit-concurrency", "100000", *sizes, *fitting.group(1).split())
    expect(len(lines), 1, f"lines with what would fit: {lines}")
    # 576 GiB of sessions, for a machine with less.
    _, warning = await said_of_memory("--max-sessions", "2147483647", "--limit-concurrency", "1")
    require("a lower --max-sessions" in warning, f"it names what is to be lowered: {warning}")


@case
async def numbers_at_the_start_are_the_true_ones():
    [line, *_] = await said_of_memory("--workers", "2", "--max-sessions", "1")
    require(", 2 sessions of " in line, f"each reactor keeps one: {line}")
    [line, *_] = await said_of_memory("--workers", "1", "--max-sessions", "1")
    require(", 1 session of " in line and ", 1 reactor of " in line, f"in the singular: {line}")
    async with Daemon("--workers", "2", "--max-sessions", "1") as daemon:
        await until(lambda: any("limits: " in line for line in daemon.lines()), 10, "the limits")
        [line] = [line for line in daemon.lines() if "limits: " in line]
        require(", 2 sessions for " in line, f"there too: {line}")


@case
async def started_and_answering():
    took = []
    for _ in range(10):
        async with Daemon() as daemon:
            async with await Raw.connect(daemon.port) as raw:
                expect((await raw.ask("/healthz")).status, 200, "healthz")
                took.append(time.perf_counter() - daemon.spawned)
    took.sort()
    note(f"from spawn to an answered healthz: best {took[0] * 1000:.1f} ms, "
         f"middle {took[5] * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms")
    require(took[5] < 1, f"{took[5]:.2f} s to start and answer")


run()
