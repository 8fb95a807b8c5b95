"""Writes what the real packages write, into tests/tasks/recorded: once for each version, by hand.

    target/tasks/venv/bin/python tests/tasks/record.py

The unit tests of src/tasks compare with it what revolve writes, and read what it reads. Ids and times differ from one
recording to the next; nothing else should. What names the machine is replaced, in tracebacks too.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import sys
import time
import zlib
from base64 import b64decode, b64encode

from services import HERE, Redis, celery_worker, rq_worker


def versions():
    return [importlib.metadata.version(name) for name in ("celery", "rq")]


def anonymous(text):
    for place, name in ((str(HERE), "/srv/app"), (sys.prefix, "/srv/venv"), (sys.base_prefix, "/usr")):
        text = text.replace(place, name)
    return re.sub(r"gen\d+@[^\"]*", "gen1@host", text)


def anonymous_zlib(text):
    inflated = anonymous(zlib.decompress(b64decode(text)).decode())
    return b64encode(zlib.compress(inflated.encode())).decode()


def write(folder, name, text):
    path = HERE / "recorded" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(anonymous(text), encoding="utf-8")
    print(path / name)


def celery(redis, client, folder):
    os.environ["BROKER"] = redis.url()
    from work import app

    def message(queue, **options):
        app.send_task("w.add", (2, 3), {"c": "ü"}, queue=queue, **options)
        (key,) = client.keys(f"{queue}*")
        return f"{key.decode('unicode_escape')}\n{client.lindex(key, 0).decode()}\n"

    write(folder, "message.txt", message("plain"))
    options = {"priority": 7, "countdown": 5, "expires": 30, "time_limit": 9, "soft_time_limit": 4.5}
    write(folder, "message-options.txt", message("options", **options))
    listener = client.pubsub()
    listener.psubscribe("/0.*")
    app.control.revoke("00000000-0000-4000-8000-000000000001")
    for heard in listener.listen():
        if heard["type"] == "pmessage":
            break
    write(folder, "revoke.txt", f"{heard['channel'].decode()}\n{heard['data'].decode()}\n")
    listener.close()

    def result(asked, wanted):
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            stored = client.get(f"celery-task-meta-{asked.id}")
            if stored and json.loads(stored)["status"] == wanted:
                return stored.decode() + "\n"
            time.sleep(0.02)
        raise AssertionError(f"no {wanted}: {stored}")

    with celery_worker(redis, processes=1):
        send = app.send_task
        write(folder, "success.txt", result(send("w.add", (2, 3)), "SUCCESS"))
        write(folder, "failure.txt", result(send("w.fail", ('no ü "x"',)), "FAILURE"))
        write(folder, "unknown.txt", result(send("w.unknown"), "FAILURE"))
        write(folder, "nan.txt", result(send("w.nan"), "SUCCESS"))
        busy, revoked = send("w.nap", (1,)), send("w.add", (1, 1))
        revoked.revoke()
        write(folder, "revoked.txt", result(revoked, "REVOKED"))
        result(busy, "SUCCESS")


def rq(redis, client, folder):
    from rq import Queue
    from rq.serializers import JSONSerializer

    def queue(name):
        return Queue(name, connection=client, serializer=JSONSerializer)

    job = queue("unheard").enqueue("jobs.add", 2, b=3, job_timeout=30, ttl=30, result_ttl=90, failure_ttl=90)
    fields = sorted(field.decode() for field in client.hgetall(f"rq:job:{job.id}"))
    write(folder, "job.txt", "\n".join(fields) + "\n")

    def result(job):
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if found := client.xrevrange(f"rq:results:{job.id}", "+", "-", count=1):
                fields = {name.decode(): value.decode() for name, value in found[0][1].items()}
                if "exc_string" in fields:
                    fields["exc_string"] = anonymous_zlib(fields["exc_string"])
                return "".join(f"{name} {value}\n" for name, value in fields.items())
            time.sleep(0.02)
        raise AssertionError("no result")

    with rq_worker(redis):
        ask = queue("default").enqueue
        write(folder, "success.txt", result(ask("jobs.add", 2, 3)))
        write(folder, "none.txt", result(ask("jobs.nap", 0)))
        write(folder, "failure.txt", result(ask("jobs.fail", 'no ü "x"')))
        write(folder, "unknown.txt", result(ask("jobs.unknown")))
        write(folder, "timeout.txt", result(ask("jobs.nap", 5, job_timeout=1)))


def main():
    from redis import Redis as Client

    celery_version, rq_version = versions()
    with Redis() as redis:
        client = Client(port=redis.port)
        celery(redis, client, f"celery-{celery_version}")
    with Redis() as redis:
        client = Client(port=redis.port)
        rq(redis, client, f"rq-{rq_version}")


main()
