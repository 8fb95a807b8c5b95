"""What the RQ workers of the tests do."""

import os
import time


def add(a, b):
    return a + b


def fail(message):
    raise ValueError(message)


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def note(path, line):
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return line


def large(size):
    return "x" * size


def die():
    os.kill(os.getpid(), 9)
