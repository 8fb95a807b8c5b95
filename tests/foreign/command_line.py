"""Cases: the command line. Help, version, one line for every mistake, exit codes 2 and 1.

Not here: what an option does once it is accepted (the file of its subject).
"""

import asyncio
import re
import socket
import time

from harness import Daemon, case, command, expect, note, require, run
from raw import Raw

# As the issue names them.
OPTIONS = """
    --host --port --workers --backlog --ws-path --ws-max-size --ws-ping-interval --ws-ping-timeout
    --heartbeat --session-ttl --max-sessions --session-ids --limit-concurrency --timeout-handshake
    --timeout-graceful-shutdown --max-send-buffer --log-level --log-format --access-log
    --no-access-log --app --allowed-origins --limit-per-ip --ws-per-message-deflate --page --no-page
    --limit-sessions-per-ip --page-for --offload-threads --slow-turn-ms --help --version
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
        plain = option.replace("--no-access-log", "no-")
        require(option in out or plain in out, f"--help says nothing of {option}")
    widest = max(out.splitlines(), key=len)
    require(len(widest) <= 100, f"a line of {len(widest)} columns in --help: {widest}")
    expect(command("-h"), (0, out, ""), "-h")


@case
async def version():
    code, out, err = command("--version")
    expect((code, err), (0, ""), "exit code and stderr of --version")
    require(re.fullmatch(r"revolve \d+\.\d+\.\d+.*\n", out), f"--version says {out!r}")


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
        (("--app", "chess"), ("--app", "chess", "counter", "echo")),
        (("--access-log=maybe",), ("--access-log",)),
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
