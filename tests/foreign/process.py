"""Cases: what a parent leaves its child with. Blocked and ignored signals, and limits of descriptors.

Not here: how a drain goes (drain.py), and what a full process does with connections (tests/hostile).
"""

import asyncio
import os
import resource
import signal
import subprocess

from harness import BINARY, Daemon, case, environment, expect, note, require, run, until

# SIGHUP has the settings read anew: settings.py.
HARMLESS = (signal.SIGUSR1, signal.SIGUSR2)
FATAL = (signal.SIGTERM, signal.SIGINT)


def blocked(numbers):
    """What the child does before it becomes the daemon: it blocks these."""
    return lambda: signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def limited(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@case(seconds=60)
async def a_signal_that_the_parent_has_blocked_still_stops_it():
    for number in FATAL:
        async with Daemon(before=blocked(signal.valid_signals())) as daemon:
            async with daemon.connect() as client:
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "reply")
            await daemon.stop(number)


@case
async def a_signal_that_the_parent_ignores_still_stops_it():
    # As a shell without job control does with SIGINT, for what it starts in the background.
    for number in FATAL:
        async with Daemon(before=lambda: signal.signal(number, signal.SIG_IGN)) as daemon:
            await daemon.stop(number)


@case
async def one_that_was_pending_at_the_start_is_heard():
    def pending():
        signal.pthread_sigmask(signal.SIG_BLOCK, FATAL)
        os.kill(os.getpid(), signal.SIGTERM)

    daemon = subprocess.Popen(
        [BINARY, "--port", "0"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=pending,
    )
    try:
        _, log = await asyncio.to_thread(daemon.communicate, timeout=20)
    finally:
        daemon.kill()
        daemon.wait()
    expect(daemon.returncode, 0, f"exit code ({log!r})")
    require(b"SIGTERM: draining" in log, f"it drains: {log!r}")


@case
async def what_would_end_another_program_is_told_and_ignored():
    for before in (None, blocked(HARMLESS)):
        async with Daemon(before=before) as daemon:
            async with daemon.connect() as client:
                for number in HARMLESS:
                    daemon.send_signal(number)
                    await until(
                        lambda: any(f"{number.name}: ignored" in line for line in daemon.lines()),
                        10,
                        f"a line about {number.name}",
                    )
                await client.send("hello")
                expect(await client.recv(), '{"count": 1}', "reply after them")


@case
async def the_soft_limit_of_descriptors_is_raised_to_the_hard_one():
    async with Daemon("--workers", "1", before=limited(30, 300)) as daemon:
        with open(f"/proc/{daemon.process.pid}/limits", encoding="ascii") as limits:
            [line] = [line for line in limits if line.startswith("Max open files")]
        expect(line.split()[3:5], ["300", "300"], "soft and hard limit")
        clients = [await daemon.connect() for _ in range(100)]
        for client in clients:
            await client.send("hello")
        for client in clients:
            expect(await client.recv(), '{"count": 1}', "reply")
            await client.close()
        [line] = [line for line in daemon.lines() if "memory: connections" in line]
        require("(300 connections of" in line, f"the bound reckons with it: {line}")


def started_with(most, workers):
    """The exit code and stderr of a daemon with so many descriptors, or None and what it says if it
    serves."""
    daemon = subprocess.Popen(
        [BINARY, "--port", "0", "--workers", str(workers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=limited(most, most),
    )
    try:
        said = b""
        while piece := os.read(daemon.stderr.fileno(), 65536):
            said += piece
            if b"to stop: " in said:
                return None, said.decode()
        # Its stderr is closed, so it has ended or is about to.
        return daemon.wait(10), said.decode()
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stderr.close()


@case(seconds=120)
async def too_few_descriptors_are_one_line_at_once():
    for workers in (1, 2, 6):
        serves_from = None
        for most in range(3, 31):
            code, said = await asyncio.to_thread(started_with, most, workers)
            if code is None:
                serves_from = serves_from or most
                continue
            expect(serves_from, None, f"it served with fewer than {most} already")
            lines = said.splitlines()
            expect(len(lines), 1, f"lines with {most} descriptors and {workers} workers ({said!r})")
            if code == 127 and "shared librar" in said:
                # The program has not begun: the system's loader could not open its libraries.
                continue
            expect(code, 1, f"exit code with {most} descriptors ({said!r})")
            require("too few file descriptors" in said, f"it says what to change: {said!r}")
            require("--workers" in said, f"it names an option: {said!r}")
        note(f"{workers} workers: serves with {serves_from or 'more than 30'} descriptors")
        require(workers > 5 or serves_from, "it serves with 30")


@case
async def with_the_least_that_it_starts_with_it_serves_somebody():
    for most in range(8, 31):
        code, _ = await asyncio.to_thread(started_with, most, 1)
        if code is None:
            break
    async with Daemon("--workers", "1", before=limited(most, most)) as daemon:
        async with daemon.connect() as client:
            await client.send("hello")
            expect(await client.recv(), '{"count": 1}', "reply")


run()
