"""Cases: jobs for real workers of RQ, by a real Redis, for clients of the daemon.

Both are processes of this file's own; nothing is asserted of how fast they are. Called by tests/run, once for each of
two versions of RQ.
"""

import asyncio
import json
import pathlib
import sys

from services import Redis, rq_worker

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

from harness import Daemon, case, expect, require, run, until  # noqa: E402

NAMES = "jobs.add,jobs.fail,jobs.nap,jobs.note,jobs.large,jobs.die,jobs.unknown"


def daemon(redis, *options, timeout=20):
    return Daemon("--app", "tasks", "--broker", redis.url(), "--task-names", NAMES,
                  "--task-workers", "rq", "--task-timeout", str(timeout), *options)


def asked(name, *args, **kwargs):
    return json.dumps({"task": name, "args": args, "kwargs": kwargs})


async def ask(socket, name, *args, **kwargs):
    await socket.send(asked(name, *args, **kwargs))
    return json.loads(await socket.recv())


async def metric(server, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + " "))


@case
async def what_a_worker_answers_comes_back():
    with Redis() as redis, rq_worker(redis):
        async with daemon(redis) as server, server.connect() as socket:
            answer = await ask(socket, "jobs.add", 2, 3)
            expect((answer["task"], answer.get("result")), ("jobs.add", 5), f"a sum: {answer}")
            expect((await ask(socket, "jobs.add", a="ü", b='"\n'))["result"], 'ü"\n', "by keyword")
            expect((await ask(socket, "jobs.nap", 0))["result"], None, "nothing")
            expect((await ask(socket, "jobs.fail", 'no ü "x"'))["error"], 'ValueError: no ü "x"', "a failure")
            answer = await ask(socket, "jobs.unknown")
            require("unknown" in answer["error"], f"a function that is not there: {answer}")
            answer = await ask(socket, "jobs.large", 300_000)
            require(answer["error"].startswith("the result is too large: "), f"large: {answer}")
            expect(len((await ask(socket, "jobs.large", 250_000))["result"]), 250_000, "one that is not")
            # The process that does it is killed, and the worker says so.
            answer = await ask(socket, "jobs.die")
            require("error" in answer and "in time" not in answer["error"], f"killed: {answer}")


@case
async def what_is_late_is_answered_and_taken_back():
    with Redis() as redis, rq_worker(redis, "low") as worker:
        async with daemon(redis, "--task-queue", "low", timeout=1) as server, server.connect() as socket:
            path = redis.path / "noted"
            await socket.send(asked("jobs.nap", 2.5))
            await socket.send(asked("jobs.note", str(path), "too late"))
            # RQ ends a job that has had its time, so either may be told first.
            for _ in range(2):
                answer = json.loads(await socket.recv())
                require("in time" in answer["error"] or "JobTimeout" in answer["error"], f"{answer}")
            await asyncio.sleep(2)
            require(not path.exists(), "it was done all the same")
            require("jobs.note" not in worker.text(), "it was begun")
            expect((await ask(socket, "jobs.nap", 0))["result"], None, "what comes later")


@case
async def a_client_that_leaves_takes_its_jobs_along():
    with Redis() as redis, rq_worker(redis) as worker:
        async with daemon(redis) as server:
            path = redis.path / "noted"
            async with server.connect() as socket:
                await socket.send(asked("jobs.nap", 1.5))
                await socket.send(asked("jobs.note", str(path), "nobody waits"))
                await until(lambda: "jobs.nap" in worker.text(), 10, "it begins")
            await asyncio.sleep(0.5)
            async with server.connect() as socket:
                expect((await ask(socket, "jobs.add", 1, 1))["result"], 2, "another client")
            require(not path.exists(), "it was done all the same")


@case
async def a_redis_that_restarts():
    with Redis() as redis:
        async with daemon(redis) as server, server.connect() as socket:
            # A worker of RQ does not bear it in the middle of a job, so none has begun.
            await socket.send(asked("jobs.add", 2, 3))

            async def is_queued():
                return await metric(server, "revolve_tasks_sent_total") == 1

            await until(is_queued, 10, "it is in the queue")
            redis.stop()
            redis.start()
            with rq_worker(redis):
                answer = json.loads(await socket.recv())
                expect(answer.get("result"), 5, f"across the restart: {answer}")


run()
