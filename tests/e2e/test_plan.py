# test_plan.py - quire plan: what fits into memory. tests/unit/test_plan.c fills pools to the end.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import re
import unittest

from cli import Case, tiny

MODEL = tiny('chat')
POSITION_BYTES = 512  # of K and V in f16: 2 layers, 4 heads of 32, K and V
CONTEXT = 4096
USAGE = 2


class Plan(Case):
    def plan(self, *arguments):
        out, err = self.quire('plan', MODEL, '--json', *arguments)
        self.assertEqual(err, b'')
        return json.loads(out)

    def test_arithmetic(self):
        got = self.plan('--memory', '10M', '--context', '1000')
        block = 16 * POSITION_BYTES
        blocks, each = (10 << 20) // block, math.ceil(1000 / 16)
        self.assertEqual((got['block_bytes'], got['blocks']), (block, blocks))
        self.assertEqual((got['blocks_sequence'], got['blocks_shared']), (each, 0))
        self.assertEqual(got['sequences'], blocks // each)
        self.assertEqual(got['waste_bytes'], got['sequences'] * (each * 16 - 1000) * POSITION_BYTES)
        self.assertAlmostEqual(got['waste_pct'], 100 * (each * 16 - 1000) / 1000)
        self.assertEqual(got['left_bytes'], (10 << 20) - got['sequences'] * each * block)
        self.assertEqual(got['groups'], [
            {'layers': 2, 'window': 0, 'sink_positions': 0, 'block_bytes': block,
             'blocks_sequence': each, 'blocks_shared': 0}])

    def test_options(self):
        half = self.plan('--memory', '10M', '--context', '1000')
        for dtypes, times in (('f32', 2), ('f32,f16', 1.5), ('bf16', 1), ('q8', 17 / 32),
                              ('q8,q4', 29 / 64), ('q4', 3 / 8)):
            got = self.plan('--memory', '10M', '--context', '1000', '--kv', dtypes)
            self.assertEqual(got['block_bytes'], half['block_bytes'] * times)
            self.assertEqual([got['dtype_k'], got['dtype_v']], (dtypes.split(',') * 2)[:2])
        exact = self.plan('--memory', '10M', '--context', '1000', '--block-size', '1')
        self.assertEqual(exact['waste_bytes'], 0)
        self.assertEqual(exact['sequences'], (10 << 20) // (1000 * POSITION_BYTES))
        shared = self.plan('--memory', '10M', '--context', '1000', '--prefix', '900')
        self.assertEqual(shared['blocks_shared'], math.ceil(900 / 16))
        self.assertEqual(shared['blocks_sequence'], math.ceil(1000 / 16) - 900 // 16)
        self.assertGreater(shared['sequences'], 6 * half['sequences'])
        self.assertEqual(self.plan()['context'], CONTEXT)
        self.assertGreater(self.plan()['memory_bytes'], 0)
        self.assertEqual(self.plan('--memory', '8191')['sequences'], 0)
        self.assertEqual(self.plan('--memory', '0')['blocks'], 0)

    def test_text(self):
        out = self.quire('plan', MODEL, '--memory', '10M', '--context', '1000', '--prefix',
                         '100')[0].decode()
        for part in ('K f16, V f16, blocks of 16 positions and 8192 bytes', '22 sequences of 1000',
                     'the first 100 shared and pinned in 7 blocks', 'waste'):
            self.assertIn(part, out)

    def test_too_little_memory(self):
        """It says how much one sequence needs, and that is enough for one."""
        for more in ([], ['--prefix', '100']):
            arguments = ['--context', '1000', *more]
            out = self.quire('plan', MODEL, '--memory', '1000', *arguments)[0].decode()
            needed = re.search(r'fit +0 sequences .*; one needs (\d+) blocks, (\d+) bytes\n', out)
            blocks, size = map(int, needed.groups())
            self.assertEqual(size, blocks * 16 * POSITION_BYTES)
            self.assertEqual(self.plan('--memory', str(size), *arguments)['sequences'], 1)
            less = self.plan('--memory', str(size - 1), *arguments)
            self.assertEqual((less['sequences'], less['blocks_first']), (0, blocks))

    def test_bad_usage(self):
        self.refuses('plan', status=USAGE, says='no model')
        for arguments in (['--context', '0'], ['--block-size', '0'], ['--kv', 'f8'],
                          ['--memory', '12Q'], ['--prefix', '-1'], ['extra']):
            with self.subTest(arguments):
                self.refuses('plan', MODEL, *arguments, status=USAGE)
        self.refuses('plan', MODEL, '--context', str(CONTEXT + 1), says=str(CONTEXT))
        self.refuses('plan', MODEL, '--context', '100', '--prefix', '100', says='--prefix')
        self.refuses('plan', self.path('missing.gguf'), says='missing.gguf')
        self.refuses('plan', self.write('text.gguf', b'no model at all'))


if __name__ == '__main__':
    unittest.main()
