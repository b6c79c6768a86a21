# terminal.py - a chat on a pseudo-terminal, for the end-to-end tests.
# SPDX-License-Identifier: Apache-2.0
import os
import pty
import re
import select
import signal

from cli import CLI, TIMEOUT_S

PROMPT = b'> '
CTRL_C, CTRL_D = b'\x03', b'\x04'


class Terminal:
    """A chat in a child that has the terminal for itself."""

    def __init__(self, case, *arguments, env=None):
        self.case = case
        self.output = b''
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CLI, [CLI, *arguments], {**os.environ, **(env or {})})
        case.addCleanup(self.end)

    def end(self):
        os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def read(self):
        """Reads once; False at the end."""
        ready, _, _ = select.select([self.fd], [], [], TIMEOUT_S)
        self.case.assertTrue(ready, self.output)
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # Linux reports the end of a terminal so
            data = b''
        self.output += data
        return data != b''

    def until_prompt(self):
        """Waits for a prompt at the end of the output, and gives the text before it."""
        while not re.search(rb'(\A|\n)> \Z', self.output):
            self.case.assertTrue(self.read(), self.output)
        text, self.output = self.output[:-len(PROMPT)], b''
        return text.replace(b'\r\n', b'\n').decode(errors='replace')

    def say(self, text):
        os.write(self.fd, text.encode() + b'\n')
        return self.until_prompt().removeprefix(text + '\n')

    def press(self, key):
        os.write(self.fd, key)

    def wait(self):
        """Waits for the end; gives the rest of the output and the exit status."""
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return self.output.decode(errors='replace'), os.waitstatus_to_exitcode(status)
