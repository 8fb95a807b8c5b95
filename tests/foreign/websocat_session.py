"""Cases: a session by `websocat`, as a person at a terminal has it, and as the README prints it.

websocat sends each line with its newline, which is why `quit` may be followed by white space.
Not here: other command-line clients.
"""

import asyncio
import pathlib
import re
import subprocess
import sys

from harness import ROOT, Daemon, case, expect, note, require, run

# The package puts the program beside the interpreter of the environment it is installed in.
WEBSOCAT = pathlib.Path(sys.prefix) / "bin" / "websocat"


async def websocat(typed, *options):
    """What it prints for what is typed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [WEBSOCAT, *options],
        input=typed.encode(),
        capture_output=True,
        timeout=15,
    )
    expect(done.returncode, 0, f"websocat's exit code ({done.stderr.decode()!r})")
    return done.stdout.decode()


@case
async def a_session_from_hello_to_quit():
    async with Daemon() as daemon:
        printed = await websocat("hello\nagain\nquit\n", "-n", daemon.url())
        expect(
            printed,
            '{"count": 1}\n{"count": 2}\n{"bye": true, "total": 2}\n',
            "what the person sees",
        )


@case
async def it_comes_back_to_its_count():
    async with Daemon("--workers", "4") as daemon:
        # -1 leaves after one message; how many lines it sends before that is its own affair.
        printed = await websocat("one\ntwo\nthree\n", "-n1", daemon.url("?session_id=alice"))
        expect(printed, '{"count": 1}\n', "the first visit")
        printed = await websocat("four\nquit\n", "-n", daemon.url("?session_id=alice&hello=1"))
        hello, reply, bye = printed.splitlines()
        require('"resumed": true' in hello, f"the hello says {hello}")
        note(f"{hello} {reply} {bye}")
        count = int(hello.split('"count": ')[1].split(",")[0])
        expect(reply, f'{{"count": {count + 1}}}', "the reply after the hello")
        expect(bye, f'{{"bye": true, "total": {count + 1}}}', "the goodbye")


@case
async def the_readme_prints_what_is_printed():
    """Each command of the README's session, typed in order; -n does not end by itself."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    command = re.compile(r"""^\$ printf '([^']*)' \| websocat (-n) "ws://[^/]+/ws/chat/([^"]*)"$""")
    async with Daemon() as daemon:
        for typed_and_printed in block.split("$ ")[1:]:
            line, *printed = ("$ " + typed_and_printed).splitlines()
            matched = command.match(line)
            require(matched is not None, f"a command that is understood: {line}")
            typed, option, query = matched.groups()
            person = await asyncio.create_subprocess_exec(
                WEBSOCAT, option, daemon.url(query),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
            try:
                person.stdin.write(typed.replace("\\n", "\n").encode())
                person.stdin.close()
                for wanted in printed:
                    if wanted == "^C":
                        continue
                    heard = await asyncio.wait_for(person.stdout.readline(), 10)
                    expect(heard.decode().rstrip("\n"), wanted, f"what follows {line}")
            finally:
                if person.returncode is None:
                    person.terminate()
                await person.wait()


@case
async def binary_is_counted_too():
    async with Daemon() as daemon:
        printed = await websocat("some bytes", "-b", "-1", daemon.url())
        expect(printed.strip(), '{"count": 1}', "the reply to a binary message")


run()
