# cli.py - runs the quire command for the end-to-end tests.
# SPDX-License-Identifier: Apache-2.0
"""QUIRE_CLI names the command; without it a test ends with status 77, which CTest shows as skipped.
tiny(NAME, ARGUMENT...) gives the path of a tiny model, made once in the build folder."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get('QUIRE_BINARY_DIR', tempfile.gettempdir()))
TIMEOUT_S = 120

if 'QUIRE_CLI' not in os.environ:
    print('QUIRE_CLI names no command')
    sys.exit(77)
CLI = os.environ['QUIRE_CLI']


def tiny(name, *arguments):
    path = BINARY / f'tiny-e2e_{name}.gguf'
    if not path.exists():
        beside = path.with_suffix(f'.{os.getpid()}')
        subprocess.run([sys.executable, SOURCE / 'scripts' / 'make_tiny_model.py', *arguments,
                        beside], check=True)
        beside.rename(path)
    return str(path)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, data):
        with open(self.path(name), 'wb') as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def quire(self, *arguments, status=0, stdin=b'', stdout=subprocess.PIPE, env=None):
        """Runs the command and gives (stdout, stderr) as bytes."""
        done = subprocess.run([CLI, *map(os.fsencode, arguments)], input=stdin, stdout=stdout,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_S,
                              env={**os.environ, **(env or {})})
        self.assertEqual(done.returncode, status, (arguments, done.stderr))
        return done.stdout, done.stderr

    def refuses(self, *arguments, says='', status=1, **more):
        """Runs the command, which must print one line on stderr and nothing else."""
        out, err = self.quire(*arguments, status=status, **more)
        self.assertIn(out, (b'', None))
        self.assertRegex(err, rb'\Aquire: [^\n]+\n\Z')
        self.assertIn(says.encode(), err)
        return err.decode(errors='replace')
