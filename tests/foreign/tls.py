"""Cases: --ssl-certfile and what belongs to it, with Python's ssl and `websockets`, with curl and with OpenSSL's
client. Needs a daemon built with the feature `tls`. The certificates are those of tests/tls.

Not here: what rustls's own client says (the Rust tests); Node (tls.mjs); a scanner (tests/tls/scan).
"""

import asyncio
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile

import websockets

from harness import PATH, ROOT, Daemon, case, command, expect, require, run, some_at_a_time, until

FILES = ROOT / "tests" / "tls" / "certificates"
KIB, MIB = 1 << 10, 1 << 20


def file(name):
    return str(FILES / name)


def pair(name):
    return ("--ssl-certfile", file(f"{name}.pem"), "--ssl-keyfile", file(f"{name}.key"))


def context(version=None, certificate=None):
    made = ssl.create_default_context(cafile=file("ca.pem"))
    if version:
        made.minimum_version = made.maximum_version = version
    if certificate:
        made.load_cert_chain(file(f"{certificate}.pem"), file(f"{certificate}.key"))
    return made


def connect(daemon, query="", **options):
    options = {"ssl": context(), "max_size": None, "proxy": None} | options
    return websockets.connect(f"wss://localhost:{daemon.port}{PATH}{query}", **options)


async def program(*arguments, given=b"", seconds=10, is_open=False):
    """Runs a program that ends by itself; returns its exit code and all that it said. With `is_open` its input goes on
    behind what is given."""
    child = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(seconds):
        if is_open:
            child.stdin.write(given)
            said = await child.stdout.read()
            await child.wait()
        else:
            said, _ = await child.communicate(given)
    return child.returncode, said.decode(errors="replace")


def openssl(daemon, *options, **more):
    to = ("-connect", f"127.0.0.1:{daemon.port}", "-CAfile", file("ca.pem"))
    return program("openssl", "s_client", *to, *options, **more)


def curl(daemon, path, *options, **more):
    url = f"https://localhost:{daemon.port}{path}"
    fixed = ("--silent", "--show-error", "--noproxy", "*", "--cacert", file("ca.pem"))
    return program("curl", *fixed, *options, url, **more)


@case(seconds=120)
async def websockets_speaks_both_versions_to_every_kind_of_key():
    for kind in ("ecdsa", "rsa", "ed25519"):
        async with Daemon("--app", "echo", *pair(kind)) as daemon:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                async with connect(daemon, ssl=context(version)) as client:
                    for size in (0, 1, 125, 126, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, MIB, 5 * MIB):
                        message = os.urandom(size)
                        await client.send(message)
                        require(await client.recv() == message, f"{size} bytes changed")
                    for number in range(500):
                        await client.send(str(number))
                    for number in range(500):
                        expect(await client.recv(), str(number), "an echo")
                expect(client.close_code, 1000, "the close code")


@case
async def many_clients_have_their_sessions_on_all_reactors():
    async with Daemon("--workers", "4", "--heartbeat", "0", *pair("ecdsa")) as daemon:

        async def come(number):
            async with connect(daemon, f"?session_id=s{number % 40}") as client:
                await client.send("one more")
                require("count" in await client.recv(), "a count")

        # Never two at once for one session: else one would displace the other.
        await some_at_a_time(200, come, width=20)


@case
async def a_drain_says_1001_and_close_notify():
    async with Daemon(*pair("ecdsa")) as daemon:
        async with connect(daemon) as client:
            daemon.process.send_signal(signal.SIGTERM)
            await client.wait_closed()
            expect(client.close_code, 1001, "the close code")
        await daemon.ended(5)


@case
async def curl_gets_its_pages_and_only_by_https():
    async with Daemon(*pair("ecdsa")) as daemon:
        for option in ("--tlsv1.3", "--tls-max=1.2"):
            option = option.split("=")
            code, said = await curl(daemon, "/healthz", *option, "--include")
            require(code == 0 and "200 OK" in said, said)
        # Two requests, one connection.
        code, said = await curl(daemon, "/healthz", "--next", "--silent", "--cacert", file("ca.pem"),
                                f"https://localhost:{daemon.port}/readyz", "-w", "%{num_connects} ")
        require(code == 0 and said.endswith("0 "), said)
        url = f"http://localhost:{daemon.port}/healthz"
        code, said = await program("curl", "--silent", "--noproxy", "*", "--include", url)
        require("400 Bad Request" in said and "this port speaks TLS" in said, said)
        # A browser's offer: HTTP/1.1 is chosen from it.
        code, said = await curl(daemon, "/healthz", "--http2", "--include")
        require(code == 0 and "HTTP/1.1 200" in said, said)


@case
async def openssl_is_content_with_the_end_and_resumes():
    async with Daemon("--workers", "3", *pair("ecdsa")) as daemon:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for version in ("-tls1_2", "-tls1_3"):
            with tempfile.TemporaryDirectory() as folder:
                ticket = f"{folder}/ticket"
                code, said = await openssl(daemon, version, "-verify_return_error", "-sess_out",
                                           ticket, "-ign_eof", given=request)
                require("Verify return code: 0 (ok)" in said and "200 OK" in said, said)
                require("closed" in said, f"no orderly end: {said}")
                resumed = 0
                # Whichever reactor it comes to.
                for _ in range(6):
                    _, said = await openssl(daemon, version, "-sess_in", ticket, "-ign_eof", given=request)
                    resumed += "Reused, " in said
                expect(resumed, 6, f"resumed with {version}")
        # Neither old versions, nor renegotiation, nor early data.
        for version in ("-tls1", "-tls1_1"):
            code, said = await openssl(daemon, version, "-cipher", "DEFAULT@SECLEVEL=0")
            require(code != 0, f"{version} was spoken: {said}")
        # The answer to R is the alert no_renegotiation (RFC 5246, 7.2.2), at which this client ends.
        code, said = await openssl(daemon, "-tls1_2", given=b"R\n", is_open=True)
        require(code != 0 and "RENEGOTIATING" in said and ":no renegotiation:" in said, said)
        _, said = await openssl(daemon, "-tls1_3", "-ign_eof", given=request)
        require("Max Early Data: 0" in said, said)


@case
async def the_name_that_is_asked_for_chooses_the_certificate():
    several = [file(f"{name}.{end}") for end in ("pem", "key") for name in ("ecdsa", "one", "wild")]
    certfiles, keyfiles = ",".join(several[:3]), ",".join(several[3:])
    async with Daemon("--ssl-certfile", certfiles, "--ssl-keyfile", keyfiles) as daemon:
        for name, subject in (
            ("one.test", "CN = one.test"),
            ("b.two.test", "CN = *.two.test"),
            ("localhost", "CN = localhost"),
            ("unknown.test", "CN = localhost"),
        ):
            _, said = await openssl(daemon, "-servername", name)
            require(f"subject={subject}" in said, f"{name}: {said}")
        _, said = await openssl(daemon, "-noservername")
        require("subject=CN = localhost" in said, said)


@case
async def clients_are_asked_for_certificates():
    options = ("--ssl-ca-certs", file("ca.pem"), "--ssl-cert-reqs")
    async with Daemon(*pair("ecdsa"), *options, "2") as daemon:
        async with connect(daemon, ssl=context(certificate="client")) as client:
            await client.send("one more")
            await client.recv()
        for certificate in (None, "stranger"):
            try:
                async with connect(daemon, ssl=context(certificate=certificate)):
                    pass
            except (ssl.SSLError, OSError, websockets.InvalidMessage):
                continue
            require(False, f"{certificate} was let in")
    async with Daemon(*pair("ecdsa"), *options, "1") as daemon, connect(daemon) as client:
        await client.send("one more")
        await client.recv()


@case
async def an_address_may_be_plain_and_the_one_for_operators_encrypted():
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        at = passed.getsockname()[1]
        admin = ("--admin", "127.0.0.1:0", "--ssl-admin")
        options = ("--host", "127.0.0.1", "--plain-port", "0", "--plain-fd", "3", "--workers", "2")
        async with Daemon(*pair("ecdsa"), *options, *admin, passed=[passed]) as daemon:
            lines = "\n".join(daemon.lines())
            (plain,) = {int(port) for port in re.findall(r": ws://127.0.0.1:(\d+)/", lines)} - {at}
            (operators,) = re.findall(r"admin on 127.0.0.1:(\d+) over TLS", lines)
            count = 0
            # One session, by way of all of them in turn.
            for _ in range(3):
                for url in (
                    f"wss://localhost:{daemon.port}{PATH}",
                    f"ws://127.0.0.1:{plain}{PATH}",
                    f"ws://127.0.0.1:{at}{PATH}",
                ):
                    more = {"ssl": context()} if url.startswith("wss") else {}
                    async with websockets.connect(f"{url}?session_id=all", proxy=None, **more) as client:
                        count += 1
                        await client.send("one more")
                        expect(json.loads(await client.recv())["count"], count, url)
            code, said = await curl(daemon, "/healthz", "--write-out", "%{http_code}")
            require("404" in said, f"operators' paths are elsewhere: {said}")
            for url, wanted in (
                (f"https://localhost:{operators}/healthz", "200"),
                (f"http://localhost:{operators}/healthz", "400"),
                (f"http://localhost:{plain}/healthz", "404"),
                (f"https://localhost:{plain}/healthz", "000"),
            ):
                _, said = await program(
                    "curl", "--silent", "--noproxy", "*", "--cacert", file("ca.pem"),
                    "--write-out", "%{http_code}", "--output", "/dev/null", url,
                )  # fmt: skip
                expect(said, wanted, url)
    for options, words in (
        (("--plain-port", "1"), "of use without --ssl-certfile"),
        ((*pair("ecdsa"), "--ssl-admin"), "of use without --admin and --ssl-certfile"),
        ((*pair("ecdsa"), "--port", "9", "--plain-port", "9"), "another address than those that speak TLS"),
    ):
        code, _, error = await asyncio.to_thread(command, *options)
        require(code == 2 and words in error and error.count("\n") == 1, error)


@case
async def sighup_loads_the_certificate_anew_and_a_bad_one_is_told():
    with tempfile.TemporaryDirectory() as folder:
        certfile, keyfile = pathlib.Path(folder, "a.pem"), pathlib.Path(folder, "a.key")

        def put(name):
            shutil.copy(file(f"{name}.pem"), certfile)
            shutil.copy(file(f"{name}.key"), keyfile)

        put("ecdsa")
        async with Daemon("--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile)) as daemon:

            async def hang_up(line):
                before = len(daemon.log)
                daemon.process.send_signal(signal.SIGHUP)
                await until(lambda: line in daemon.log[before:], 5, f"the line {line!r}")
                _, said = await openssl(daemon)
                return said

            async with connect(daemon) as client:
                put("renewed")
                require("O = renewed" in await hang_up(b"the certificates are loaded anew"), "renewed")
                keyfile.write_text("nothing")
                require("O = renewed" in await hang_up(b"the former certificates stay"), "kept")
                await client.send("still there")
                await client.recv()


@case
async def what_is_wrong_is_told_in_a_line():
    for options, line in (
        (("--ssl-certfile", file("nobody.pem")), "No such file or directory"),
        (("--ssl-certfile", file("ecdsa.pem")), "has no private key"),
        (("--ssl-certfile", file("ecdsa.key")), "has no certificate"),
        (pair("ecdsa")[:3] + (file("rsa.key"),), "is not the key of the certificate"),
        (pair("ecdsa")[:3] + (file("encrypted.key"),), "passphrase"),
    ):
        for more in ((), ("--check-config",)):
            code, said, error = await asyncio.to_thread(command, "--port", "0", *options, *more)
            require(code == 1 and not said, f"{options}: exit code {code}")
            require(error.startswith("revolve: --ssl-") and line in error, error)
            expect(error.count("\n"), 1, f"lines of {error!r}")
    # One file, whatever its name is.
    authorities = ("--ssl-cert-reqs", "2", "--ssl-ca-certs", "none," + file("ca.pem"))
    code, _, error = await asyncio.to_thread(command, *pair("ecdsa"), *authorities, "--check-config")
    require(code == 1 and "revolve: --ssl-ca-certs none," in error, error)
    for options in (("--ssl-keyfile", "a"), ("--ssl-cert-reqs", "2"), ("--ssl-cert-reqs", "3")):
        code, _, error = await asyncio.to_thread(command, *options)
        require(code == 2 and error.startswith("revolve: --ssl-"), error)
    async with Daemon(*pair("expired")) as daemon:
        require(b"has expired" in daemon.log, "a warning")
    code, said, error = await asyncio.to_thread(command, *pair("expired"), "--check-config")
    expect((code, error), (0, ""), "exit code and stderr")
    require("is of CN=" in said and "warning: certificate " in said and "has expired" in said, said)


run()
