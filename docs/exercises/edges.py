"""When an edge comes: one line for each case, on a real epoll. For docs/learning.md. Linux only.

    python3 docs/exercises/edges.py
"""

import select
import socket

NAMES = (
    (select.EPOLLIN, "IN"), (select.EPOLLOUT, "OUT"), (select.EPOLLPRI, "PRI"),
    (select.EPOLLRDHUP, "RDHUP"), (select.EPOLLHUP, "HUP"), (select.EPOLLERR, "ERR"),
)
ALL = select.EPOLLET | select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLRDHUP


class Pair:
    """Two ends of a TCP connection; ours is registered, for both directions, edge-triggered."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.ours = listener.accept()[0]
        self.ours.setblocking(False)
        self.epoll = select.epoll()

    def register(self):
        self.epoll.register(self.ours, ALL)

    def told(self):
        """What a poll reports now. 50 ms are enough for the loopback interface."""
        events = self.epoll.poll(0.05)
        return " ".join(name for bit, name in NAMES if events and events[0][1] & bit) or "nothing"


def show(what, told):
    print(f"{what:66} {told}")


pair = Pair()
pair.register()
show("a fresh socket is registered", pair.told())
show("polled again", pair.told())
pair.peer.sendall(b"hello, event loop")
show("17 bytes came", pair.told())
show("polled again, nothing was read", pair.told())
pair.ours.recv(8)
show("8 were read, 9 are left", pair.told())
pair.peer.sendall(b"!")
show("one more byte came", pair.told())
show(f"recv(100) gives {len(pair.ours.recv(100))} bytes: a short read, the socket is empty", pair.told())
while True:
    try:
        pair.ours.send(bytes(65536))
    except BlockingIOError:
        break
show("written until it was full", pair.told())
pair.peer.settimeout(1)
pair.peer.recv(65536)
show("the peer read 64 KiB of it", pair.told())
try:
    while pair.peer.recv(1 << 20):
        pass
except TimeoutError:
    pass
show("the peer read all of it", pair.told())

pair = Pair()
pair.peer.sendall(b"early")
pair.register()
show("registered when 5 bytes are there already", pair.told())
pair.peer.sendall(b"last")
pair.peer.shutdown(socket.SHUT_WR)
show("4 bytes and a FIN came", pair.told())
show(f"recv(100) gives {len(pair.ours.recv(100))} bytes: a short read, but the FIN is unread", pair.told())
show(f"recv(100) gives {len(pair.ours.recv(100))} bytes: the end of the stream", pair.told())

pair = Pair()
pair.register()
pair.told()
pair.peer.sendall(b"ab")
pair.peer.send(b"!", socket.MSG_OOB)
pair.peer.sendall(b"cd")
show("2 bytes, an urgent one and 2 more came", pair.told())
show(f"recv(100) gives {len(pair.ours.recv(100))} bytes: a short read, it stops at the urgent mark", pair.told())
show(f"recv(100) gives {len(pair.ours.recv(100))} bytes", pair.told())
