"""Cases: where the daemon listens. Hosts, names, both families, one port, and the mode of a Unix socket.

Not here: what a Unix socket's file goes through (unix_socket.py), and ports that are in use
(command_line.py).
"""

import asyncio
import pathlib
import re
import shutil
import socket
import stat
import tempfile

from harness import Daemon, case, command, expect, require, run, until

HOME = pathlib.Path(tempfile.mkdtemp(prefix="revolve-"))


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def ask(host, port, target, fields=(), first=b""):
    """A plain request on a connection of its own: status and body. `first` is sent before it."""
    reader, writer = await asyncio.open_connection(host, port)
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", ""]
    writer.write(first + "\r\n".join(lines).encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def addresses(daemon):
    """Where its log says that it listens."""
    found = (re.search(r"listening on (\S+): ", line) for line in daemon.lines())
    return [match.group(1) for match in found if match]


@case
async def several_hosts_have_one_port():
    for options in (("--host", "127.0.0.1", "--host", "127.0.0.2"), ("--host=127.0.0.1,127.0.0.2",)):
        async with Daemon(*options) as daemon:
            for host in ("127.0.0.1", "127.0.0.2"):
                expect((await ask(host, daemon.port, "/healthz"))[0], 200, host)
            wanted = [f"127.0.0.1:{daemon.port}", f"127.0.0.2:{daemon.port}"]
            await until(lambda: addresses(daemon) == wanted, 10, f"{wanted} in the log")


@case
async def localhost_is_both_loopback_addresses():
    async with Daemon(extra={"REVOLVE_HOST": "localhost"}) as daemon:
        for host in ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",):
            expect((await ask(host, daemon.port, "/healthz"))[0], 200, host)


@case
async def the_address_of_all_is_of_both_families():
    if not has_ipv6():
        return
    # The first address is for the harness, which waits for its port.
    for hosts in ("127.0.0.1,::", "0.0.0.0,::"):
        async with Daemon(f"--host={hosts},::") as daemon:
            for host in ("127.0.0.1", "::1"):
                expect((await ask(host, daemon.port, "/healthz"))[0], 200, f"{host} of {hosts}")


@case
async def a_host_that_cannot_be_had_is_one_line_and_exit_1():
    for host, word in (("no-such-host.invalid", "no address is known"), ("192.0.2.1", "no such address")):
        code, out, err = command("--host", host, "--port", "0")
        expect((code, out, len(err.splitlines())), (1, "", 1), f"exit code, stdout, lines ({err!r})")
        require(f"cannot listen on {host}" in err and word in err and "--host" in err, err)


@case
async def a_unix_socket_has_the_mode_that_was_asked_for():
    path = HOME / "s"
    for mode in ("600", "0666"):
        daemon = Daemon("--uds", f"{path}:{mode}", uds=path)
        async with daemon:
            expect(stat.S_IMODE(path.stat().st_mode), int(mode, 8), "mode")
            async with daemon.connect() as client:
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "reply")
        require(not path.exists(), "the file is gone")
    code, _, err = command("--uds", f"{path}:688")
    expect(code, 2, f"exit code ({err!r})")


try:
    run()
finally:
    shutil.rmtree(HOME, ignore_errors=True)
