"""A client made of bytes: what a library would never send, and what it would hide.

Upgrade requests, masked frames and plain HTTP over one TCP connection, each sent exactly as
given. Checks nothing by itself; a case compares what comes back.

Called by the cases that need the bytes themselves.
"""

import asyncio
import base64
import os
import socket
from dataclasses import dataclass

from harness import PATH, Failure

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass
class Response:
    status: int
    headers: dict  # names in lower case
    body: bytes


@dataclass
class Frame:
    opcode: int
    payload: bytes
    final: bool = True
    head: bytes = b""  # the header bytes as they came

    @property
    def close_code(self):
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else None

    @property
    def close_reason(self):
        return self.payload[2:].decode()


def request(target, method="GET", headers=()):
    """A plain request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def upgrade(query="", path=PATH):
    """An upgrade request as every client sends it."""
    key = base64.b64encode(os.urandom(16)).decode()
    return request(
        path + query,
        headers=(
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ),
    )


def frame(opcode, payload=b"", final=True, masked=True):
    """One frame, masked as a client's must be unless a case wants it wrong."""
    if isinstance(payload, str):
        payload = payload.encode()
    mask_bit = 0x80 if masked else 0
    head = bytearray([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        head.append(mask_bit | len(payload))
    elif len(payload) < 65536:
        head.append(mask_bit | 126)
        head += len(payload).to_bytes(2, "big")
    else:
        head.append(mask_bit | 127)
        head += len(payload).to_bytes(8, "big")
    if not masked:
        return bytes(head) + payload
    key = os.urandom(4)
    whole = key * (len(payload) // 4 + 1)
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(whole[: len(payload)], "big")
    return bytes(head) + key + hidden.to_bytes(len(payload), "big")


def close(code=1000, reason=""):
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


class Raw:
    """One TCP connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port, receive_buffer=None):
        """`receive_buffer` makes the kernel's buffer small, so that what we do not read stays
        with the server."""
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        limit = receive_buffer or 1 << 16
        return cls(*await asyncio.open_connection(sock=plain, limit=limit))

    @classmethod
    async def open(cls, port, query=""):
        """Connects and upgrades; the response is kept as `self.response`."""
        raw = await cls.connect(port)
        await raw.send(upgrade(query))
        raw.response = await raw.answer()
        if raw.response.status != 101:
            raise Failure(f"the upgrade was answered {raw.response}")
        return raw

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.abort()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def send_bytewise(self, data, pause=0):
        """Every byte a packet of its own, as far as the kernel allows."""
        for at in range(len(data)):
            self.writer.write(data[at : at + 1])
            await asyncio.sleep(pause)

    async def answer(self, head_only=False):
        """One HTTP response; `head_only` for the answer to HEAD."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Failure(f"the connection ended where an answer was due: {error}") from None
        first, *lines = head[:-4].split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split(" ")[1])
        length = 0 if head_only or status == 101 else int(headers.get("content-length", 0))
        return Response(status, headers, await self.reader.readexactly(length))

    async def ask(self, target, method="GET", headers=()):
        """One plain request and its answer."""
        await self.send(request(target, method, headers))
        return await self.answer(head_only=method == "HEAD")

    async def frame(self):
        """The next frame; `asyncio.IncompleteReadError` at the end of the connection."""
        head = await self.reader.readexactly(2)
        length = head[1] & 0x7F
        if head[1] & 0x80:
            raise Failure("a server's frame came masked")
        if length >= 126:
            more = await self.reader.readexactly(2 if length == 126 else 8)
            head += more
            length = int.from_bytes(more, "big")
        payload = await self.reader.readexactly(length)
        return Frame(head[0] & 0x0F, payload, bool(head[0] & 0x80), head)

    async def text(self):
        """The next text message; pings are answered, anything else fails."""
        while True:
            got = await self.frame()
            if got.opcode == TEXT:
                return got.payload.decode()
            if got.opcode != PING:
                raise Failure(f"wanted a text frame, got {got}")
            await self.send(frame(PONG, got.payload))

    async def at_end(self):
        """True if the server closed its side and sent nothing more; a reset counts as closed."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def abort(self):
        """Leaves without a word."""
        self.writer.transport.abort()
