"""Cases: where the daemon listens. Hosts, names, both families, one port, the mode of a Unix socket, and
sockets that it is passed; the address of operators; who a proxy says that the client is; and header fields.

Not here: what a Unix socket's file goes through (unix_socket.py), and ports that are in use
(command_line.py).
"""

import asyncio
import os
import pathlib
import re
import shutil
import socket
import stat
import tempfile

from harness import Daemon, Failure, case, command, expect, require, run, until

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


def listener(family=socket.AF_INET, address=("127.0.0.1", 0)):
    made = socket.socket(family)
    made.bind(address)
    made.listen(128)
    return made


@case
async def sockets_that_are_passed_are_listened_on_without_an_option():
    path = HOME / "passed"
    with listener() as first, listener() as second, listener(socket.AF_UNIX, str(path)) as unix:
        async with Daemon("--workers", "3", passed=(first, second, unix)) as daemon:
            ports = [made.getsockname()[1] for made in (first, second)]
            wanted = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", f"unix:{path}"]
            await until(lambda: addresses(daemon) == wanted, 10, f"{wanted} in the log")
            for port in ports:
                daemon.port = port
                clients = [await daemon.connect() for _ in range(30)]
                _, page = await ask("127.0.0.1", port, "/metrics")
                held = [line for line in page.splitlines() if line.startswith("revolve_websockets{")]
                require(all(int(line.split()[-1]) >= 9 for line in held), f"each has a share: {held}")
                for client in clients:
                    await client.send("hello")
                    expect(await client.recv(), '{"count": 1}', "reply")
                    await client.close()
                await until_none(port)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            require((await reader.read()).startswith(b"HTTP/1.1 200"), "/healthz over the path")
            writer.close()
            # They are its own: no child of it would have them.
            for fd in (3, 4, 5):
                with open(f"/proc/{daemon.process.pid}/fdinfo/{fd}", encoding="ascii") as info:
                    [flags] = [line.split()[1] for line in info if line.startswith("flags:")]
                require(int(flags, 8) & os.O_CLOEXEC, f"descriptor {fd} is closed by exec: {flags}")
                require(int(flags, 8) & os.O_NONBLOCK, f"descriptor {fd} does not block: {flags}")
        require(path.exists(), "the path is not its own, so it stays")
        # The socket goes on for who passed it: the next server answers who came in between.
        waiting = asyncio.create_task(ask("127.0.0.1", first.getsockname()[1], "/healthz"))
        await asyncio.sleep(0)
        async with Daemon(passed=(first,)):
            expect((await waiting)[0], 200, "a client that came between two servers")


async def until_none(port):
    async def is_empty():
        _, page = await ask("127.0.0.1", port, "/metrics")
        lines = [line for line in page.splitlines() if line.startswith("revolve_websockets{")]
        return sum(int(line.split()[-1]) for line in lines) == 0

    await until(is_empty, 10, "no WebSocket is open")


@case
async def fd_chooses_by_number_and_by_name():
    with listener() as first, listener() as second:
        for which in ("4", "chat"):
            names = {"LISTEN_FDNAMES": "other:chat"}
            async with Daemon("--fd", which, passed=(first, second), extra=names) as daemon:
                expect(daemon.port, second.getsockname()[1], f"the port of --fd {which}")
                said = "1 socket passed and not listened on; see --fd"
                await until(lambda: any(said in line for line in daemon.lines()), 10, said)
        async with Daemon("--fd", "3", "--fd", "4", passed=(first, second)) as daemon:
            await until(lambda: len(addresses(daemon)) == 2, 10, "both")


@case
async def a_descriptor_that_is_no_listener_is_one_line_and_exit_1():
    with socket.socket() as silent, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for passed in (silent, datagrams):
            daemon = Daemon(passed=(passed,))
            try:
                await daemon.__aenter__()
            except Failure:
                pass
            expect(await daemon.ended(10), 1, "exit code")
            [line] = daemon.lines()
            require("descriptor 3: it is no stream socket that listens" in line, line)
    for options, code, words in (
        (("--fd", "7"), 1, "cannot listen on descriptor 7: it was not passed"),
        (("--fd", "http"), 1, "cannot listen on descriptor http: it was not passed"),
        # Its standard input is /dev/null.
        (("--fd", "0"), 1, "cannot listen on descriptor 0: it is no stream socket that listens"),
        (("--fd", "1:2"), 2, "--fd"),
    ):
        found, out, err = command(*options)
        expect((found, out, len(err.splitlines())), (code, "", 1), f"{options}: {err!r}")
        require(words in err, err)
    # Told of in no way that means anything.
    for count in ("x", "-1", "1025"):
        found, out, err = command("--port", "0", extra={"LISTEN_FDS": count})
        expect((found, out, len(err.splitlines())), (1, "", 1), f"LISTEN_FDS={count}: {err!r}")
        require(f'LISTEN_FDS: "{count}" is not a number of sockets' in err, err)
    # Told of, and for another process.
    extra = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    found, _, err = command("--fd", "3", extra=extra)
    require(found == 1 and "was not passed" in err, err)


@case
async def every_response_has_the_header_fields_of_the_options():
    options = ("--header", "X-Robots-Tag: noindex", "--header=Server:ours")
    async with Daemon(*options) as daemon:
        for target in ("/healthz", "/nothing"):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.read()).partition(b"\r\n\r\n")[0]
            expect(head.count(b"\r\nX-Robots-Tag: noindex\r\nServer: ours"), 1, f"in {head}")
            writer.close()
        async with daemon.connect() as client:
            found = client.response.headers
            expect((found["X-Robots-Tag"], found["Server"]), ("noindex", "ours"), "of the 101")
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply")
    for wrong in ("X-Robots-Tag", "Content-Length: 1", "X: a\r\nY: b"):
        found, _, err = command("--header", wrong)
        expect((found, len(err.splitlines())), (2, 1), f"{wrong!r}: {err!r}")


@case
async def operators_have_an_address_of_their_own():
    path = HOME / "admin"
    async with Daemon("--admin", f"unix:{path}:600") as daemon:
        expect(stat.S_IMODE(path.stat().st_mode), 0o600, "mode")
        said = f"admin on unix:{path}: /healthz, /readyz, /metrics"
        await until(lambda: any(said in line for line in daemon.lines()), 10, said)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        require((await reader.read()).startswith(b"HTTP/1.1 200"), "/metrics over the path")
        writer.close()
        expect((await ask("127.0.0.1", daemon.port, "/metrics"))[0], 404, "/metrics for all")
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply")


@case
async def a_proxy_says_who_the_client_is_and_nobody_else_does():
    options = ("--log-format", "json", "--proxy-protocol", "--proxy-headers", "x-forwarded-for")
    first = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
    async with Daemon(*options) as daemon:
        expect((await ask("127.0.0.1", daemon.port, "/healthz", first=first))[0], 200, "with a header")
        expect((await ask("127.0.0.1", daemon.port, "/healthz"))[0], 400, "without one")
        # What its client invents in the field is not believed: that one is no proxy of ours.
        fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "X-Forwarded-For: 192.0.2.9"]
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        head = "\r\n".join(["GET /ws/chat/ HTTP/1.1", "Host: a", *fields, "", ""])
        writer.write(first + head.encode())
        require((await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101"), "an upgrade")
        said = '"peer":"192.0.2.7:4711"'
        await until(lambda: any(said in line for line in daemon.lines()), 10, said)
        writer.close()
    async with Daemon(*options, "--forwarded-allow-ips", "192.0.2.1") as daemon:
        fields = ["X-Forwarded-For: 192.0.2.9"]
        expect((await ask("127.0.0.1", daemon.port, "/", fields))[0], 403, "marked as forwarded")
        expect((await ask("127.0.0.1", daemon.port, "/healthz"))[0], 200, "without a header")
        found = await ask("127.0.0.1", daemon.port, "/healthz", first=first)
        expect(found[0], 505, "a header from elsewhere")


@case
async def descriptor_0_as_inetd_passes_it():
    with listener() as first:
        fd = first.fileno()
        # `before` runs where its standard input is set already.
        async with Daemon("--fd", "0", before=lambda: os.dup2(fd, 0)) as daemon:
            expect(daemon.port, first.getsockname()[1], "port")
            expect((await ask("127.0.0.1", daemon.port, "/healthz"))[0], 200, "/healthz")


try:
    run()
finally:
    shutil.rmtree(HOME, ignore_errors=True)
