"""Cases: tasks for real workers of Celery, by a real Redis, for clients of the daemon.

Both are processes of this file's own; nothing is asserted of how fast they are. Called by tests/run, once for each of
two versions of Celery.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import statistics
import sys
import time

import websockets

from services import Redis, celery_worker

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

from harness import Daemon, case, expect, note, require, run, until  # noqa: E402

NAMES = "w.add,w.fail,w.nap,w.note,w.large,w.nan,w.die,w.unknown"


def daemon(redis, *options, timeout=20):
    return Daemon("--app", "tasks", "--broker", redis.url(), "--task-names", NAMES,
                  "--task-timeout", str(timeout), *options)


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


async def answered(server, outcome):
    return await metric(server, f'revolve_tasks_answered_total{{outcome="{outcome}"}}')


@case
async def what_a_worker_answers_comes_back():
    with Redis() as redis, celery_worker(redis):
        async with daemon(redis) as server, server.connect() as socket:
            answer = await ask(socket, "w.add", 2, 3)
            expect((answer["task"], answer["result"]), ("w.add", 5), "a sum")
            expect(len(answer["id"]), 36, "the length of its id")
            answer = await ask(socket, "w.add", a="ü", b='"\n')
            expect(answer["result"], 'ü"\n', "texts by keyword")
            answer = await ask(socket, "w.fail", 'no ü "x"')
            expect(answer["error"], 'ValueError: no ü "x"', "a failure")
            answer = await ask(socket, "w.unknown")
            expect(answer["error"], "NotRegistered: w.unknown", "a task that the worker does not know")
            answer = await ask(socket, "w.add", 1)
            require(answer["error"].startswith("TypeError: "), f"too few arguments: {answer}")
            answer = await ask(socket, "w.nan")
            require(answer["error"].startswith("the result cannot be read: not JSON"), f"NaN: {answer}")
            answer = await ask(socket, "w.large", 300_000)
            require(answer["error"].startswith("the result is too large: 300"), f"large: {answer}")
            answer = await ask(socket, "w.large", 250_000)
            expect(len(answer["result"]), 250_000, "bytes of a result below the limit")
            answer = await ask(socket, "os.system", "true")
            expect(answer["error"], "clients may not have this done (--task-names)", "another task")
            expect(await answered(server, "success"), 3, "counted")
            expect(await metric(server, "revolve_tasks_under_way"), 0, "under way")


@case
async def the_example_with_its_worker():
    examples = pathlib.Path(__file__).resolve().parents[2] / "examples"
    with Redis() as redis, celery_worker(redis, app="worker", folder=examples):
        process = await asyncio.create_subprocess_exec(
            os.environ["TASKS_EXAMPLE"], "0", redis.url(), stdin=-1, stdout=-1
        )
        try:
            url = (await process.stdout.readline()).decode().split()[0]
            async with websockets.connect(url, proxy=None) as socket:
                await socket.send("30")
                expect(json.loads(await socket.recv()), {"title": "yearly", "pages": 30}, "a report")
                await socket.send("2000")
                expect(await socket.recv(), "ValueError: no report is that long", "too long a one")
            process.stdin.close()
            expect(await process.wait(), 0, "its exit code")
        finally:
            if process.returncode is None:
                process.kill()


@case
async def a_queue_of_its_own():
    with Redis() as redis, celery_worker(redis, "-Q", "own"):
        async with daemon(redis, "--task-queue", "own") as server, server.connect() as socket:
            expect((await ask(socket, "w.add", 2, 3))["result"], 5, "a sum")


@case
async def what_is_late_is_answered_and_taken_back():
    with Redis() as redis, celery_worker(redis, processes=1) as worker:
        async with daemon(redis, timeout=1) as server, server.connect() as socket:
            path = str(redis.path / "noted")
            await socket.send(asked("w.nap", 2.5))
            # It waits in the worker behind the first one, and is revoked there.
            await socket.send(asked("w.note", path, "too late"))
            for _ in range(2):
                expect(json.loads(await socket.recv())["error"], "no result in time", "late")
            expect(await answered(server, "timed_out"), 2, "counted")
            expect(await metric(server, "revolve_tasks_taken_back_total"), 2, "taken back")
            await until(lambda: "revoked" in worker.text() or "Discarding" in worker.text(), 10, "revoked")
            await asyncio.sleep(2)
            require(not pathlib.Path(path).exists(), "it was done all the same")
            expect((await ask(socket, "w.add", 1, 1))["result"], 2, "what comes later")


@case
async def a_client_that_leaves_takes_its_tasks_along():
    with Redis() as redis, celery_worker(redis, processes=1) as worker:
        async with daemon(redis) as server:
            path = redis.path / "noted"
            async with server.connect() as socket:
                await socket.send(asked("w.nap", 1.5))
                await socket.send(asked("w.note", str(path), "nobody waits"))
                await until(lambda: "Task w.nap[" in worker.text(), 10, "it begins")

            async def are_gone():
                return await metric(server, "revolve_tasks_under_way") == 0

            await until(are_gone, 5, "they are let go of")
            async with server.connect() as socket:
                expect((await ask(socket, "w.add", 1, 1))["result"], 2, "another client")
            require(not path.exists(), "it was done all the same")
            expect(await metric(server, "revolve_tasks_abandoned_total"), 2, "abandoned")


@case
async def a_worker_that_is_killed_in_mid_task():
    with Redis() as redis, celery_worker(redis) as worker:
        async with daemon(redis, timeout=4) as server, server.connect() as socket:
            # Acknowledged before it began: its process is killed, and the worker says so.
            answer = await ask(socket, "w.die", str(redis.path / "early"))
            require(answer["error"].startswith("WorkerLostError: "), f"its process: {answer}")
            # The whole worker is killed: nobody says anything.
            await socket.send(asked("w.nap", 60))
            await until(lambda: "Task w.nap[" in worker.text(), 10, "it begins")
            worker.kill()
            expect(json.loads(await socket.recv())["error"], "no result in time", "no worker")


@case
async def with_late_acks_another_process_does_it():
    with Redis() as redis, celery_worker(redis, acks_late=True):
        async with daemon(redis) as server, server.connect() as socket:
            answer = await ask(socket, "w.die", str(redis.path / "late"))
            expect(answer.get("result"), 2, f"how often it was begun: {answer}")


@case(seconds=60)
async def a_redis_that_restarts():
    with Redis() as redis, celery_worker(redis) as worker:
        async with daemon(redis) as server, server.connect() as socket:
            expect((await ask(socket, "w.add", 2, 3))["result"], 5, "before")
            await socket.send(asked("w.nap", 2, "slept"))
            await until(lambda: "Task w.nap[" in worker.text(), 10, "it begins")
            redis.stop()
            # It waits for the broker, in order behind the other one.
            await socket.send(asked("w.add", 3, 4))
            await asyncio.sleep(1)
            redis.start()
            expect(json.loads(await socket.recv()).get("result"), "slept", "across the restart")
            expect(json.loads(await socket.recv()).get("result"), 7, "asked while it was away")


@case
async def a_redis_that_is_away():
    with Redis() as redis:
        url = redis.url()
        redis.stop()
        options = ("--app", "tasks", "--broker", url, "--task-names", NAMES, "--broker-timeout", "0.5")
        async with Daemon(*options) as server, server.connect() as socket:
            answer = await ask(socket, "w.add", 2, 3)
            expect(answer["error"], "not sent", f"away: {answer}")
            expect(await metric(server, "revolve_broker_available"), 0, "available")
            redis.start()
            with celery_worker(redis):

                async def is_there():
                    return await metric(server, "revolve_broker_available") == 1

                await until(is_there, 10, "it is there")
                expect((await ask(socket, "w.add", 2, 3))["result"], 5, "later")


@case(seconds=60)
async def a_thousand_tasks_of_a_hundred_clients_in_order():
    with Redis() as redis, celery_worker(redis):
        async with daemon(redis, timeout=50) as server:
            async with contextlib.AsyncExitStack() as stack:
                sockets = [await stack.enter_async_context(server.connect()) for _ in range(100)]

                async def client(number, socket):
                    for count in range(10):
                        await socket.send(asked("w.add", number * 1000, count))
                    for count in range(10):
                        answer = json.loads(await socket.recv())
                        expect(answer.get("result"), number * 1000 + count, f"client {number}: {answer}")

                began = time.monotonic()
                async with asyncio.TaskGroup() as group:
                    for number, socket in enumerate(sockets):
                        group.create_task(client(number, socket))
                note(f"1,000 tasks of 100 clients: {1000 / (time.monotonic() - began):.0f} a second")
            expect(await answered(server, "success"), 1000, "counted")


@case(seconds=60)
async def what_it_costs_beside_celerys_own_client():
    with Redis() as redis, celery_worker(redis, processes=1):
        os.environ["BROKER"] = redis.url()
        from work import add

        async with daemon(redis) as server, server.connect() as socket:
            async def ours():
                began = time.perf_counter()
                await ask(socket, "w.add", 2, 3)
                return time.perf_counter() - began

            def theirs():
                began = time.perf_counter()
                add.delay(2, 3).get(timeout=10)
                return time.perf_counter() - began

            times = ([], [])
            for _ in range(200):
                times[0].append(await ours())
                times[1].append(theirs())
            ms = [statistics.median(of) * 1000 for of in times]
            note(f"a task and its result, in the middle: {ms[0]:.2f} ms by WebSocket, {ms[1]:.2f} ms by Celery's client")


run()
