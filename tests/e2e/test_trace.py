# test_trace.py - quire trace replay and quire bench evict, and the traces of the repository.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
import unittest

from cli import Case, SOURCE

TRACES = SOURCE / 'examples' / 'traces'
NAMES = ('chats', 'agents', 'documents')
USAGE = 2
HEAD = 'quire-trace 1\n'


class Replay(Case):
    def replay(self, path, *arguments, **more):
        out, err = self.quire('trace', 'replay', path, '--json', *arguments, **more)
        self.assertEqual(err, b'')
        self.assertEqual(out.count(b'\n'), 1)
        return json.loads(out)

    def test_repository(self):
        """The traces are what the script makes, small, long, and hardly waste anything."""
        subprocess.run([sys.executable, SOURCE / 'scripts' / 'make_traces.py', self.folder.name],
                       check=True)
        self.assertEqual(sorted(os.listdir(self.folder.name)), sorted(os.listdir(TRACES)))
        for name in NAMES:
            path = TRACES / f'{name}.trace'
            data = path.read_bytes()
            with open(self.path(f'{name}.trace'), 'rb') as file:
                self.assertEqual(data, file.read(), name)
            self.assertLess(len(data), 40000)
            got = self.replay(path)
            self.assertEqual(got['served'], data.count(b'\nrequest '))
            self.assertGreater(got['prompt_tokens'], 500000)
            self.assertLess(got['waste_pct_mean'], 2)
            self.assertEqual((got['evictions'], got['refused'], got['preempted']), (0, 0, 0))
            # What is computed and what is found is all there is; nothing is computed twice.
            self.assertEqual(got['computed_tokens'] + got['hit_tokens'] - got['prompt_tokens'],
                             got['output_tokens'] - got['served'])

    def test_less_memory_hits_less(self):
        for name in NAMES:
            for policy in ('lru', 'cost'):
                rates = [self.replay(TRACES / f'{name}.trace', '--eviction', policy, '--blocks',
                                     blocks) for blocks in ('900', '3000', '200000')]
                hits = [row['hit_tokens'] for row in rates]
                self.assertEqual(hits, sorted(hits), (name, policy))
                self.assertLess(hits[0], hits[2])
                self.assertGreater(rates[0]['evictions'], 0)
                self.assertEqual(rates[0]['peak_blocks'], 900)
                for row in rates:
                    self.assertEqual(row['eviction'], policy)
                    self.assertEqual(row['output_tokens'], rates[0]['output_tokens'])

    def test_scan(self):
        """The documents that are read once push out less under the policy that counts."""
        rates = {policy: self.replay(TRACES / 'documents.trace', '--blocks', '3000', '--eviction',
                                     policy)['hit_tokens'] for policy in ('lru', 'cost')}
        self.assertGreater(rates['cost'], rates['lru'])

    def test_same_every_time(self):
        path = TRACES / 'agents.trace'
        arguments = ('--blocks', '1000', '--seqs', '4', '--block-size', '8')
        self.assertEqual(self.replay(path, *arguments), self.replay(path, *arguments))

    def test_memory(self):
        """Bytes instead of blocks."""
        path = TRACES / 'chats.trace'
        want = self.replay(path, '--blocks', '1000', '--block-size', '32')
        got = self.replay(path, '--memory', '32000K', '--bytes-per-token', '1K', '--block-size',
                          '32')
        self.assertEqual(got, want)

    def test_sources_and_text(self):
        text = HEAD + 'request at=0 in=~1:100 gen=5 id=a\nrequest at=9 in=@a,~2:9 gen=5\n'
        path = self.write('t.trace', text)
        want = self.replay(path)
        got = self.replay('-', stdin=text.encode())
        self.assertEqual({**got, 'file': path}, want)
        out = self.quire('trace', 'replay', path)[0].decode()
        for part in ('2 served', '1 requests (50.0 %)', '104 of 214 prompt tokens (48.6 %)',
                     '118 tokens, 10 generated', 'eviction lru', 'blocks of 16'):
            self.assertIn(part, out)

    def test_too_small(self):
        """A pool for no request at all is an error that says what is needed; for some it is not."""
        path = self.write('t.trace', HEAD + 'request at=0 in=~1:100 gen=5\n'
                          'request at=1 in=~2:300 gen=5\n')
        for json_too in ([], ['--json']):
            out, err = self.quire('trace', 'replay', path, '--blocks', '6', *json_too, status=1)
            self.assertIn(b'refused', out)
            self.assertRegex(err, rb'\Aquire: [^\n]*6 blocks [^\n]* largest needs 19 blocks\n\Z')
        self.assertEqual(self.replay(path, '--blocks', '7')['refused'], 1)
        self.assertEqual(self.replay(path, '--blocks', '19')['refused'], 0)
        text = [self.quire('trace', 'replay', path, *blocks)[0].decode()
                for blocks in ([], ['--blocks', '28'])]
        self.assertEqual(['all requests together' in each for each in text], [True, False])

    def test_empty_trace(self):
        got = self.replay(self.write('t.trace', 'quire-trace 1'))
        self.assertEqual((got['requests'], got['steps'], got['hit_tokens_pct']), (0, 0, 0))

    def test_broken_files(self):
        for name, data, line in (
                ('empty', b'', 1), ('nothing', b'\n\n', 1), ('binary', os.urandom(64) + b'\n', 1),
                ('newer', b'quire-trace 2\n', 1), ('word', HEAD.encode() + b'ask at=0\n', 2),
                ('order', HEAD.encode() + b'request at=1 in=1 gen=1\nrequest at=0 in=1 gen=1', 3),
                ('vocabulary', HEAD.encode() + b'vocab 9\n\nrequest at=0 in=9 gen=1\r\n', 4),
                ('huge', HEAD.encode() + b'request at=0 in=~1:99999999999 gen=1\n', 2),
                ('nul', HEAD.encode() + b'request at=0 in=1\0 gen=1\n', 2)):
            path = self.write(f'{name}.trace', data)
            with self.subTest(name):
                err = self.refuses('trace', 'replay', path, says=f'{path}:{line}: ')
                self.assertIn('expected', err)
        self.refuses('trace', 'replay', '-', says='standard input:1: ')
        self.refuses('trace', 'replay', self.path('missing'), says='missing')
        self.refuses('trace', 'replay', self.folder.name)

    def test_bad_usage(self):
        path = self.write('t.trace', HEAD)
        self.refuses('trace', status=USAGE, says='replay')
        self.refuses('trace', 'walk', status=USAGE, says='walk')
        self.refuses('trace', 'replay', status=USAGE, says='no file')
        for arguments in (['--eviction', 'best'], ['--blocks', '0'], ['--block-size', '0'],
                          ['--seqs', '0'], ['--seqs', '600'], ['--step-tokens', '0'],
                          ['--step-ms', '0'], ['--memory', '1G'], ['--bytes-per-token', '1K'],
                          ['--memory', '1G', '--bytes-per-token', '1K', '--blocks', '5'],
                          ['--memory', '1', '--bytes-per-token', '1K'],
                          ['--memory', '9999999999G', '--bytes-per-token', '1'],
                          ['--memory', '1G', '--bytes-per-token', '9999999999G'], ['extra']):
            with self.subTest(arguments):
                self.refuses('trace', 'replay', path, *arguments, status=USAGE)


class Evict(Case):
    def test_rates(self):
        """The simulated LRU hits as often as the pool, or the bench fails; the oracle is best."""
        got = json.loads(self.quire('bench', 'evict', '--requests', '600', '--json')[0])
        self.assertEqual(sorted({row['workload'] for row in got['rows']}),
                         sorted([*NAMES, 'mixed']))
        for row in got['rows']:
            for policy in ('lru_pct', 'cost_pct', 'gdsf_pct'):
                self.assertLessEqual(row[policy], row['oracle_pct'], row)
            self.assertGreater(row['oracle_pct'], 0)
        text = self.quire('bench', 'evict', '--requests', '50', '--seed', '2')[0].decode()
        self.assertEqual(len(text.splitlines()), 1 + len(got['rows']))


if __name__ == '__main__':
    unittest.main()
