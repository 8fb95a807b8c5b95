"""A Redis and real workers, as processes that are ended by their ids.

Nothing here knows the daemon. Called by the cases of this directory and by record.py.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(sys.executable).parent


def free_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def end(process, number=signal.SIGTERM, seconds=10):
    """Ends a process and those of its group, which are its own."""
    for stroke in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, stroke)
        try:
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            continue
    # Children of one that was killed.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Redis:
    """A server with a log, so that it knows after a restart what it knew before."""

    def __init__(self):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="revolve-tasks-")
        self.path = pathlib.Path(self.folder.name)
        self.process = None

    def url(self):
        # Not by its number: the first address in the daemon's log is taken for the daemon's.
        return f"redis://localhost:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server does not listen")

    def stop(self):
        if self.process:
            end(self.process)
            self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self.folder.cleanup()


class Worker:
    """A worker, which is ready when its log says so."""

    def __init__(self, command, ready, environment=None, folder=HERE):
        self.command, self.ready, self.folder = command, ready, folder
        self.environment = os.environ | (environment or {})
        self.process = None
        self.log = None

    def start(self):
        self.log = tempfile.NamedTemporaryFile(prefix="revolve-worker-", suffix=".log")
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        give_up = time.monotonic() + 30
        while self.ready not in self.text():
            if self.process.poll() is not None or time.monotonic() > give_up:
                end(self.process, signal.SIGKILL)
                raise AssertionError(f"a worker is not ready: {self.text()[-2000:]}")
            time.sleep(0.02)

    def text(self):
        return pathlib.Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def kill(self):
        """SIGKILL to it and to all its processes."""
        end(self.process, signal.SIGKILL)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        end(self.process)
        self.log.close()


def celery_worker(redis, *options, acks_late=False, processes=4, app="work", folder=HERE):
    command = [str(BIN / "celery"), "-A", app, "worker", "-l", "info", "-c", str(processes),
               "--without-gossip", "--without-mingle", *options]
    environment = {"BROKER": redis.url(), "ACKS_LATE": str(int(acks_late))}
    return Worker(command, " ready.", environment, folder)


def rq_worker(redis, queue="default"):
    # RQ 2 knows no short name for it.
    is_old = importlib.metadata.version("rq").startswith("2.")
    serializer = "rq.serializers.JSONSerializer" if is_old else "json"
    command = [str(BIN / "rq"), "worker", "--url", redis.url(), "--serializer", serializer, queue]
    return Worker(command, "Listening on", {"PYTHONPATH": str(HERE), "NO_COLOR": "1"})
