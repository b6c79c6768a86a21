# test_memory.py - what a real model takes of memory, from the load to the first answer.
# SPDX-License-Identifier: Apache-2.0
"""The matrices become the backend's own while pages of the file are given back, so the peak stays
below 1.4 times the file, activations and vocabulary included."""
import os
import subprocess
import sys
import tempfile
import unittest

from cli import CLI

PEAK = 1.4  # of the file
MODELS = [os.environ[name] for name in ('QUIRE_TEST_MODEL', 'QUIRE_TEST_MODEL_GEMMA3')
          if os.environ.get(name)]


def peak_bytes(model):
    """Of a child of a child: the largest of all children counts."""
    script = ('import resource, subprocess, sys; '
              'subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); '
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)')
    command = [sys.executable, '-c', script, CLI, 'run', '-m', model, '-p', 'hi', '-n', '1',
               '-c', '64']
    return int(subprocess.run(command, check=True, capture_output=True).stdout) * 1024


class Memory(unittest.TestCase):
    def test_peak(self):
        for model in MODELS:
            self.assertLess(peak_bytes(model), PEAK * os.path.getsize(model), model)

    def test_peak_of_large_folios(self):
        """A file written at once lies in folios of up to 2 MiB, all of which a fault may map."""
        with tempfile.NamedTemporaryFile(suffix='.gguf') as copy:
            with open(MODELS[0], 'rb') as model:
                copy.write(model.read())
            copy.flush()
            self.assertLess(peak_bytes(copy.name), PEAK * os.path.getsize(MODELS[0]))


if __name__ == '__main__':
    if not MODELS:
        print('QUIRE_TEST_MODEL and QUIRE_TEST_MODEL_GEMMA3 name no models')
        sys.exit(77)
    unittest.main()
