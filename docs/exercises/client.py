"""The clients of the exercises in docs/learning.md.

    python3 docs/exercises/client.py takeover|burst|stall|half-close|hand-over [PORT]

Plain sockets, nothing to install. It prints what it does; look at the server's trace for what the server
does. Speaks to 127.0.0.1 only. Every wait has an end.
"""

import socket
import sys
import time

REQUEST = (
    "GET /ws/chat/{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATIENCE = 40  # seconds


def frame(opcode, payload):
    """A whole frame, masked with zeros (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def connect(port, query="", behind=b"", receive_buffer=None):
    """Upgrades; what stands in `behind` goes in the same packet as the request."""
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", port))
    client.sendall(REQUEST.format(query=query).encode() + behind)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    print("upgraded")
    return client


def takeover(port):
    """alice says hello; connects a second time, says hello again, and quits."""
    first = connect(port, "?session_id=alice")
    first.sendall(frame(1, b"hello"))
    first.recv(4096)
    second = connect(port, "?session_id=alice")
    second.sendall(frame(1, b"hello"))
    second.recv(4096)
    second.sendall(frame(1, b"quit"))
    second.recv(4096)
    second.sendall(frame(8, (1000).to_bytes(2, "big")))
    print(f"the first connection heard {first.recv(4096)!r}")


def burst(port):
    """10,000 messages of one byte, sent at once."""
    client = connect(port)
    client.sendall(frame(1, b"x") * 10_000)
    heard = b""
    while b'"count": 10000}' not in heard:
        heard = heard[-100:] + client.recv(65536)
    print("heard the last count")


def stall(port):
    """Sends messages of 64 KiB to an echo and reads nothing, until it is disconnected."""
    client = connect(port, receive_buffer=4096)
    client.setblocking(False)
    message, sent, began = frame(2, bytes(65536)), 0, time.monotonic()
    queued = b""
    while time.monotonic() - began < PATIENCE:
        try:
            queued = queued or message
            count = client.send(queued)
            queued, sent = queued[count:], sent + count
        except BlockingIOError:
            time.sleep(0.05)
        except (ConnectionResetError, BrokenPipeError) as error:
            print(f"{error.strerror}, {time.monotonic() - began:.0f} s after the start")
            break
    print(f"sent {sent} bytes, read none")


def half_close(port):
    """One message, then a FIN and no Close frame: `shutdown(SHUT_WR)`. Reads on."""
    client = connect(port)
    client.sendall(frame(1, b"hello"))
    client.shutdown(socket.SHUT_WR)
    print(f"heard {client.recv(4096)!r}, then {client.recv(4096)!r}")


def hand_over(port):
    """Two messages in the same packet as the request. The kernel chooses the reactor that accepts, so
    of eight connections some arrive at the one that does not own the session."""
    for number in range(1, 9):
        client = connect(port, "?session_id=alice", frame(1, b"hello") * 2)
        heard = b""
        while b'"count": %d}' % (2 * number) not in heard:
            heard += client.recv(4096)
        client.close()
    print("all were counted")


WHAT = {
    "takeover": takeover,
    "burst": burst,
    "stall": stall,
    "half-close": half_close,
    "hand-over": hand_over,
}

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in WHAT:
        sys.exit(__doc__.strip())
    WHAT[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) == 3 else 8000)
