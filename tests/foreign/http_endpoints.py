"""Cases: plain HTTP on the same port. healthz, readyz, refusals, keep-alive, pipelining.

Not here: what /metrics says (metrics.py), readyz while draining (drain.py).
"""

import asyncio
import base64
import hashlib
import http.client

from harness import PATH, Daemon, case, expect, require, run
from raw import Raw, request, upgrade
from scrape import scrape

GOOD = {"/healthz": b'{"status": "ok"}', "/readyz": b'{"ready": true}'}
ENDPOINTS = ("/healthz", "/readyz", "/metrics")


@case
async def healthz_and_readyz():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        for target, body in GOOD.items():
            answer = await raw.ask(target)
            expect((answer.status, answer.body), (200, body), f"GET {target}")
            require("json" in answer.headers.get("content-type", ""), f"{target} is not JSON")
            expect((await raw.ask(target + "?probe=1")).status, 200, f"GET {target} with a query")


@case
async def head_is_get_without_its_body():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        for target, body in GOOD.items():
            answer = await raw.ask(target, "HEAD")
            expect(answer.status, 200, f"HEAD {target}")
            expect(answer.headers["content-length"], str(len(body)), "Content-Length")
        expect((await raw.ask("/metrics", "HEAD")).status, 200, "HEAD /metrics")
        # Had a body followed one of the HEADs, this answer would not be found where it is.
        expect((await raw.ask("/healthz")).body, GOOD["/healthz"], "GET after the HEADs")


@case
async def other_methods_get_405_with_allow():
    async with Daemon() as daemon:
        for target in (*ENDPOINTS, PATH):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                async with await Raw.connect(daemon.port) as raw:
                    answer = await raw.ask(target, method, ["Content-Length: 0"])
                    expect(answer.status, 405, f"{method} {target}")
                    allow = [m.strip() for m in answer.headers.get("allow", "").split(",")]
                    for known in ("GET", "OPTIONS"):
                        require(known in allow, f"{method} {target}: Allow is {allow}")
                    if target != PATH:
                        require("HEAD" in allow, f"{method} {target}: Allow is {allow}")


@case
async def unknown_paths_get_404():
    async with Daemon() as daemon:
        for target in ("/nowhere", "/healthz/", "/ws", "/ws/chat/more", "/../etc/passwd", "/%00"):
            async with await Raw.connect(daemon.port) as raw:
                expect((await raw.ask(target)).status, 404, f"GET {target}")
        async with await Raw.connect(daemon.port) as raw:
            await raw.send(upgrade(path="/elsewhere/"))
            expect((await raw.answer()).status, 404, "an upgrade on another path")


@case
async def the_websocket_may_be_at_the_root():
    for path in ("/", "/*"):
        async with Daemon("--ws-path", path) as daemon:
            async with daemon.connect(path="/") as client:
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', f"reply at / with --ws-path {path}")
            async with await Raw.connect(daemon.port) as raw:
                answer = await raw.ask("/")
                expect(answer.status, 200, "a plain GET")
                require(b'data-ws-path="/"' in answer.body, "the page's own client connects there")
                expect((await raw.ask("/healthz")).status, 200, "healthz")
    async with Daemon("--ws-path", "/", "--no-page") as daemon:
        async with await Raw.connect(daemon.port) as raw:
            expect((await raw.ask("/")).status, 426, "a plain GET without the page")


@case
async def without_metrics_there_are_none():
    async with Daemon("--no-metrics") as daemon:
        async with await Raw.connect(daemon.port) as raw:
            expect((await raw.ask("/healthz")).status, 200, "healthz")
            expect((await raw.ask("/metrics")).status, 404, "metrics")
        [line] = [line for line in daemon.lines() if "listening on" in line]
        require("/metrics" not in line, f"it is not told where they would be: {line}")


@case
async def a_plain_get_on_the_websocket_path_gets_426():
    async with Daemon() as daemon:
        for target in (PATH, PATH[:-1], PATH + "?session_id=a"):
            async with await Raw.connect(daemon.port) as raw:
                answer = await raw.ask(target)
                expect(answer.status, 426, f"GET {target}")
                expect(answer.headers.get("upgrade", "").lower(), "websocket", "Upgrade")


@case
async def a_stock_client_keeps_its_connection():
    async with Daemon() as daemon:

        def talk():
            connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
            connection.connect()
            socket = connection.sock
            for number in range(50):
                target = list(GOOD)[number % 2]
                connection.request("GET", target)
                answer = connection.getresponse()
                expect((answer.status, answer.read()), (200, GOOD[target]), f"GET {target}")
                require(connection.sock is socket, "the server closed a connection to be kept")
            connection.request("GET", "/healthz", headers={"Connection": "close"})
            answer = connection.getresponse()
            expect(answer.read(), GOOD["/healthz"], "the last body")
            expect(answer.getheader("Connection", "").lower(), "close", "Connection on the last")
            connection.close()

        await asyncio.to_thread(talk)


@case
async def close_is_honoured():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        await raw.ask("/healthz")
        await raw.ask("/healthz", headers=["Connection: close"])
        expect(await raw.at_end(), True, "the connection ends after Connection: close")


@case
async def http_1_0_is_closed_after_its_answer():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        await raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await raw.answer()
        expect((answer.status, answer.body), (200, GOOD["/healthz"]), "GET by HTTP/1.0")
        expect(await raw.at_end(), True, "the connection ends after HTTP/1.0")


@case
async def pipelined_requests_are_answered_in_order():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        targets = [list(GOOD)[number % 2] for number in range(200)]
        await raw.send(b"".join(request(target) for target in targets))
        for target in targets:
            expect((await raw.answer()).body, GOOD[target], f"GET {target} in the pipeline")
        # A refusal may close its connection, so it comes last.
        await raw.send(request("/healthz") + request("/nowhere"))
        expect((await raw.answer()).status, 200, "GET /healthz before a 404")
        expect((await raw.answer()).status, 404, "GET /nowhere behind it")


@case
async def requests_byte_by_byte():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        for _ in range(2):
            await raw.send_bytewise(request("/healthz", headers=["User-Agent: slow"]), 0.001)
            expect((await raw.answer()).body, GOOD["/healthz"], "GET byte by byte")


@case
async def a_head_that_takes_too_long_gets_408():
    # The time counts from the accept, so trickling bytes do not prolong it.
    async with Daemon("--timeout-handshake", "1") as daemon:
        async with await Raw.connect(daemon.port) as raw:
            await raw.send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            answering = asyncio.create_task(raw.answer())
            for _ in range(100):
                if answering.done():
                    break
                raw.writer.write(b"y")
                await asyncio.sleep(0.1)
            expect((await answering).status, 408, "a request head that never ends")
            expect(await raw.at_end(), True, "the connection ends after the 408")


@case
async def an_upgrade_may_follow_plain_requests():
    async with Daemon("--workers", "4") as daemon:
        for number in range(20):
            async with await Raw.connect(daemon.port) as raw:
                await raw.send(request("/healthz") + upgrade(f"?session_id=after-{number}"))
                expect((await raw.answer()).body, GOOD["/healthz"], "GET before the upgrade")
                answer = await raw.answer()
                expect(answer.status, 101, "the upgrade behind it")
                expect(answer.headers["x-session-id"], f"after-{number}", "X-Session-Id")


@case
async def what_balancers_and_probes_send_is_answered():
    async with Daemon() as daemon:
        for probe, allowed in (
            (b"OPTIONS / HTTP/1.0\r\n\r\n", "GET, HEAD, OPTIONS"),  # HAProxy's, as it comes
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "GET, HEAD, OPTIONS"),
            (b"OPTIONS /healthz HTTP/1.1\r\nHost:\r\n\r\n", "GET, HEAD, OPTIONS"),
            (b"OPTIONS /ws/chat/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET, OPTIONS"),
            (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", None),
            (b"GET http://a/healthz HTTP/1.0\r\n\r\n", None),
            (b"GET /healthz HTTP/1.2\r\nHost: [fe80::1%25eth0]:80\r\n\r\n", None),
        ):
            async with await Raw.connect(daemon.port) as raw:
                await raw.send(probe)
                answer = await raw.answer()
                expect(answer.status, 200, f"{probe!r}")
                expect(answer.headers.get("allow"), allowed, f"Allow for {probe!r}")


@case
async def upgrades_in_every_form_that_the_rfcs_allow():
    async with Daemon() as daemon:
        target = PATH.encode()
        for number, (find, put) in enumerate(
            (
                (target, b"ws://127.0.0.1" + target),
                (target, b"HTTPS://elsewhere.example:443" + target),
                (b"HTTP/1.1", b"HTTP/1.2"),
                (b"Host: 127.0.0.1", "Host: a\r\nCookie: ort=Zürich; sid=7".encode()),
                (b"Host: 127.0.0.1", b"Host: a\r\nUser-Agent: caf\xe9 \xff\xfe"),
                (b"Host: 127.0.0.1", b"Host: [fe80::1%eth0]:8000"),
            )
        ):
            async with await Raw.connect(daemon.port) as raw:
                head = upgrade(f"?session_id=form-{number}")
                require(find in head, f"{find!r} is in the request")
                await raw.send(head.replace(find, put, 1))
                answer = await raw.answer()
                expect(answer.status, 101, f"{put!r}")
                expect(answer.headers["x-session-id"], f"form-{number}", "X-Session-Id")


@case
async def a_key_with_pad_bits_is_hashed_as_sent():
    async with Daemon() as daemon, await Raw.connect(daemon.port) as raw:
        key = b"AQIDBAUGBwgJCgsMDQ4PEC=="
        good = upgrade()
        before, rest = good.split(b"Sec-WebSocket-Key: ")
        await raw.send(before + b"Sec-WebSocket-Key: " + key + rest[rest.index(b"\r\n") :])
        hashed = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = (await raw.answer()).headers["sec-websocket-accept"]
        expect(accept, base64.b64encode(hashed).decode(), "Sec-WebSocket-Accept")


@case
async def silence_is_closed_without_an_answer():
    async with Daemon("--timeout-handshake", "1") as daemon:
        async with await Raw.connect(daemon.port) as raw:
            expect(await asyncio.wait_for(raw.reader.read(-1), 15), b"", "the answer to silence")
        metrics = await scrape(daemon)
        expect(metrics.value("revolve_silent_total"), 1, "revolve_silent_total")
        expect(metrics.value("revolve_rejected_total", reason="head_timeout"), 0, "told 408")


@case
async def nonsense_is_refused_and_hurts_nobody():
    async with Daemon() as daemon, daemon.connect() as client:
        for nonsense in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS hello
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
            b"\x00" * 1000,
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000,
        ):
            async with await Raw.connect(daemon.port) as raw:
                try:
                    await raw.send(nonsense)
                    raw.writer.write_eof()
                    answer = await asyncio.wait_for(raw.reader.read(-1), 15)
                except ConnectionError:
                    continue
                status = answer[:12]
                require(
                    answer == b"" or status.startswith(b"HTTP/1.1 4"),
                    f"{nonsense[:20]!r} was answered {status!r}",
                )
        await client.send("still here")
        expect(await client.recv(), '{"count": 1}', "a client beside the nonsense")


run()
