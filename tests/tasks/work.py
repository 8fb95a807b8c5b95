"""What the Celery workers of the tests do. Started by services.py, with the broker's URL in BROKER."""

import os
import time

from celery import Celery

app = Celery("work", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
# A broker that restarts is there again in a moment.
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_cancel_long_running_tasks_on_connection_loss = False
app.conf.task_acks_late = os.environ.get("ACKS_LATE") == "1"
app.conf.task_reject_on_worker_lost = app.conf.task_acks_late
# With late acks a task that was lost is delivered again after this.
app.conf.broker_transport_options = {"visibility_timeout": 3}


@app.task(name="w.add")
def add(a, b):
    return a + b


@app.task(name="w.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="w.nap")
def nap(seconds, value=None):
    time.sleep(seconds)
    return value


@app.task(name="w.note")
def note(path, line):
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return line


@app.task(name="w.large")
def large(size):
    return "x" * size


@app.task(name="w.nan")
def nan():
    return float("nan")


@app.task(name="w.die")
def die(path):
    """Its process is killed the first time, and not again."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("begun\n")
    with open(path, encoding="utf-8") as file:
        begun = len(file.readlines())
    if begun == 1:
        os.kill(os.getpid(), 9)
    return begun
