"""A shell that a person types into: on a terminal of its own, so that its line editor completes.

Knows nothing of what is completed. Called by completions.py.
"""

import os
import pty
import re
import select
import subprocess
import time

# What a terminal is told besides text: colours, titles, moves of the cursor.
CONTROLS = re.compile(rb"\x1b\[[0-9;?>=]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>]|\r|\x08")


class Shell:
    """`with Shell("bash", "--norc") as shell:`; ends with the block."""

    def __init__(self, *command):
        self.command = command
        self.seen = b""

    def __enter__(self):
        self.terminal, other = pty.openpty()
        self.process = subprocess.Popen(
            self.command,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        )
        os.close(other)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def type(self, text):
        os.write(self.terminal, text.encode())

    def wait_for(self, text, seconds=20):
        """Until the terminal shows it; what was shown before is no longer looked at."""
        give_up = time.monotonic() + seconds
        while text.encode() not in (plain := CONTROLS.sub(b"", self.seen)):
            left = give_up - time.monotonic()
            if left < 0 or not select.select([self.terminal], [], [], left)[0]:
                raise AssertionError(f"{self.command[0]} does not show {text!r}, but {plain!r}")
            self.seen += os.read(self.terminal, 65536)
        self.seen = b""
