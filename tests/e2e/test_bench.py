# test_bench.py - quire bench roof, attn and linear: what they print, draw and refuse.
# SPDX-License-Identifier: Apache-2.0
"""All with --quick, whose times mean nothing: what is tested is what is measured and told."""
import json
import os
import shutil
import subprocess
import sys
import unittest
import xml.etree.ElementTree as xml

from cli import Case, SOURCE, tiny

USAGE = 2
SVG = '{http://www.w3.org/2000/svg}'

# Stands for quire and for llama.cpp's tools: figures that name what was asked for.
STUB = """#!/bin/sh
case "$0 $*" in
*"info --cpu"*) echo '{"level": "avx2"}' ;;
*"--kv f16 "*) echo '{"rows": [{"prompt_tok_s": 300, "gen_tok_s": 30}]}' ;;
*"--kv q8 "*) echo '{"rows": [{"prompt_tok_s": 200, "gen_tok_s": 20}]}' ;;
*--shared*) echo '{"rows": [{"gen_tok_s": 400}]}' ;;
*"bench model"*) echo '{"rows": [{"gen_tok_s": 600}]}' ;;
*"bench attn"*) echo '{"rows": [{"ms": 2}], "ring_bytes": 1048576}' ;;
*llama-bench*"-fa 1"*)
    echo '[{"n_gen": 0, "samples_ts": [100]}, {"n_gen": 64, "samples_ts": [8]}]' ;;
*llama-bench*) echo '[{"n_gen": 0, "samples_ts": [80]}, {"n_gen": 64, "samples_ts": [10]}]' ;;
*llama-batched-bench*-pps*) echo '{"speed_tg": 100}' ;;
*llama-batched-bench*) printf 'log\\n{"speed_tg": 200}\\n' ;;
*ggml_attend*q8_0*) echo "no such type" >&2; exit 3 ;;
*ggml_attend*) echo '{"rows": [{"flash_ms": 6, "plain_ms": 5}]}' ;;
esac
"""


class Bench(Case):
    def bench(self, *arguments, **more):
        out, err = self.quire('bench', *arguments, '--quick', '--json', **more)
        self.assertEqual(err, b'')
        self.assertEqual(out.count(b'\n'), 1)
        return json.loads(out)

    def check_rows(self, got):
        """A roof is the longer of two times, and every figure is there."""
        names = [row['name'] for row in got['rows']]
        self.assertEqual(len(names), len(set(names)))
        for row in got['rows']:
            for key in ('ms', 'roof_ms', 'bytes', 'products'):
                self.assertGreater(row[key], 0, row)
            self.assertAlmostEqual(row['ratio'], row['roof_ms'] / row['ms'])
            self.assertTrue(0 <= row['target'] < 1)
            rate = got['codes_gmac_s' if row['codes'] else 'gmac_s']
            least = max(row['bytes'] / got['read_gb_s'] / 1e6, row['products'] / rate / 1e6)
            self.assertGreaterEqual(row['roof_ms'], least * 0.999)

    def test_roof(self):
        got = self.bench('roof', '--threads', '2')
        levels = json.loads(self.quire('info', '--cpu', '--json')[0])
        runs = [level['name'] for level in levels['levels'] if level['runs']]
        runs = runs[:runs.index(levels['level']) + 1]
        self.assertEqual([(row['level'], row['threads']) for row in got['rows']],
                         [(level, threads) for level in runs for threads in (1, 2)])
        for row in got['rows']:
            for key in ('read_gb_s', 'f32_gmac_s', 'bf16_gmac_s', 'codes_gmac_s'):
                self.assertGreater(row[key], 0)
        got = self.bench('roof', '--threads', '1', env={'QUIRE_CPU': 'generic'})
        self.assertEqual([row['name'] for row in got['rows']], ['ref-1', 'generic-1'])

    def test_attn(self):
        got = self.bench('attn', '--threads', '2')
        self.check_rows(got)
        rows = {row['name']: row for row in got['rows']}
        for name in ('decode-4k-f32-contiguous', 'decode-64k-bf16-paged', 'batch-16x2k-f16-paged',
                     'mha-16k-f16-paged', 'mqa-16k-f16-paged', 'cascade-64x128+8k-f16-paged',
                     'new-1-8k-f16-paged', 'new-64-8k-f16-paged', 'prefill-512-8k-f16-paged'):
            self.assertIn(name, rows)
        # The same positions: half the bytes for half the bits, whatever the layout.
        for layout in ('contiguous', 'paged'):
            wide, narrow = (rows[f'decode-16k-{dtype}-{layout}'] for dtype in ('f32', 'f16'))
            self.assertEqual(wide['bytes'], 2 * narrow['bytes'])
            self.assertEqual(wide['products'], narrow['products'])
        # 64 x (256 + 31 + 1) positions are seen, 256 + 64 x 32 are read.
        row = rows['cascade-64x128+8k-f16-paged']
        self.assertEqual(row['products'], 2 * 128 * 32 * 64 * 288)
        self.assertEqual(row['bytes'], (256 + 64 * 32) * 2 * 8 * 128 * 2)
        self.assertEqual(rows['mha-16k-f16-paged']['bytes'],
                         32 * rows['mqa-16k-f16-paged']['bytes'])
        steps = got['new_tokens']
        self.assertEqual(len(steps['ms']), 64)
        self.assertEqual(steps['even'], steps['over_chord'] <= 1.3 and steps['drop'] >= 0.95)
        # A type that there is no K/V of is told, and is no row.
        for row in got['skipped']:
            self.assertNotIn(row['name'], rows)
            self.assertTrue(row['why'])
        self.assertEqual(len(rows) + len(got['skipped']), 5 * 2 * 3 + 4 + 7 + 4)

    def test_linear(self):
        got = self.bench('linear', '--threads', '2')
        self.check_rows(got)
        self.assertEqual(len(got['rows']), 11 * 3)
        rows = {row['name']: row for row in got['rows']}
        side = 512
        for name, elements, size in (('f32', 1, 4), ('q8_0', 32, 34), ('q4_k', 256, 144),
                                     ('q6_k', 256, 210)):
            for tokens in (1, 32, 512):
                row = rows[f'linear-{name}-{tokens}']
                self.assertEqual(row['bytes'], side * side // elements * size)
                self.assertEqual(row['products'], side * side * tokens)

    def test_text(self):
        text = self.quire('bench', 'linear', '--quick', '--only', 'q4_1')[0].decode()
        self.assertIn('--quick', text)
        rows = [line.split() for line in text.splitlines() if line.startswith('linear-')]
        self.assertEqual([row[0] for row in rows],
                         ['linear-q4_1-1', 'linear-q4_1-32', 'linear-q4_1-512'])
        for row in rows:
            self.assertIn(row[5], ('memory', 'products')) # small shapes meet no target
        self.assertFalse([line for line in text.splitlines() if line != line.rstrip()])
        text = self.quire('bench', 'attn', '--quick', '--only', 'new-')[0].decode()
        self.assertRegex(text, r'\nnew-1 \.\. new-64: at most [0-9.]+ of the line')

    def test_some_steps(self):
        """Steps that are asked for by name are rows; a curve needs all of them."""
        got = self.bench('attn', '--only', 'new-7')
        self.assertEqual([row['name'] for row in got['rows']], ['new-7-8k-f16-paged'])
        self.assertEqual(got['new_tokens'], {})

    def test_svg(self):
        for bench, only, circles, lines in (('attn', '-f16-contig', 3, 2), ('linear', 'q5', 9, 4),
                                            ('attn', 'mha', 1, 1)):
            path = self.path(f'{bench}.svg')
            self.quire('bench', bench, '--quick', '--only', only, '--svg', path)
            root = xml.parse(path).getroot()
            self.assertEqual(root.tag, SVG + 'svg')
            self.assertEqual(len(root.findall(f'.//{SVG}circle')), circles)
            # The roof, and one line a curve.
            self.assertEqual(len(root.findall(f'.//{SVG}polyline')), lines)
            for line in root.iter(SVG + 'polyline'):
                for point in line.get('points').split():
                    x, y = map(float, point.split(','))
                    self.assertTrue(0 <= x <= 760 and 0 <= y <= 1140, point)

    def test_refusals(self):
        for bench in ('roof', 'attn', 'linear'):
            for arguments in (['--runs', '2'], ['--runs', '1000'], ['--threads', '0'], ['--fast'],
                              ['extra'], ['--only']):
                self.refuses('bench', bench, *arguments, status=USAGE)
        # Before anything is measured: no row stands there.
        for bench in ('attn', 'linear'):
            self.refuses('bench', bench, '--quick', '--svg', '/no/such/folder/x.svg',
                         says='/no/such/folder/x.svg')
        self.refuses('bench', 'attn', '--json', env={'QUIRE_CPU': 'sse9'}, says='sse9')

    def test_no_row(self):
        for bench in ('roof', 'attn', 'linear'):
            out, err = self.quire('bench', bench, '--quick', '--only', 'nothing', '--json',
                                  status=1)
            self.assertEqual(out, b'')
            self.assertRegex(err, rb'\Aquire: [^\n]*no row has nothing in its name\n\Z')

    def test_peers_say_their_usage(self):
        """Nothing is fetched or built for words that mean nothing."""
        for script, *arguments in (('bench/llama.sh',), ('bench/llama.sh', '/no/such.gguf'),
                                   ('bench/llama.sh', '--level'),
                                   ('bench/peers/get_llama.sh', 'sse9')):
            done = subprocess.run([SOURCE / script, *arguments], capture_output=True, check=False)
            self.assertEqual((done.returncode, done.stdout), (2, b''))
            self.assertIn(b'usage: ' + script.encode(), done.stderr)

    def peers(self, *arguments, **more):
        """Runs bench/peers/speed.py with stubs for all that it measures."""
        os.makedirs(self.path('bin'), exist_ok=True)
        for name in ('quire', 'ggml_attend', 'bin/llama-bench', 'bin/llama-batched-bench'):
            os.chmod(self.write(name, STUB), 0o755)
        self.write('version', '7')
        return subprocess.run([sys.executable, SOURCE / 'bench' / 'peers' / 'speed.py', '--quire',
                               self.path('quire'), '--llama', self.folder.name, *arguments,
                               'x.gguf'], capture_output=True, check=False, **more)

    def peer_rows(self, part):
        done = self.peers('--json', '--only', part)
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        got = json.loads(done.stdout)
        self.assertEqual((got['level'], got['llama']), ('native (Quire: avx2)', '7'))
        return {row['work']: (row['quire'], row['llama_flash'], row['llama_plain'], row['ratio'])
                for row in got['rows']}

    def test_peers_compare(self):
        """A ratio is against the better one, and q8 stands beside llama.cpp's f16."""
        rows = self.peer_rows('models')
        self.assertEqual(rows['prompt 512 at 0, f16'], (300, 100, 80, 3))
        self.assertEqual(rows['generate 64 at 7000, f16'], (30, 8, 10, 3))
        self.assertEqual(rows['generate 64 at 7000, q8 beside f16'], (20, 8, 10, 2))
        self.assertEqual(self.peer_rows('batch'),
                         {'generate, 32 sequences of 128': (600, 200, 200, 3)})
        self.assertEqual(self.peer_rows('shared'),
                         {'generate, 32 sequences of 1': (600, 200, 200, 3),
                          'generate, 32 sequences sharing 2048': (400, 100, 100, 4),
                          'their step, to one without the 2048': (1.5, 2, 2, 2 / 1.5),
                          'their step, to the same with the cascade off':
                              (1, None, None, None)})

    def test_peers_say_what_fails(self):
        """The other rows are measured all the same, and the status tells."""
        done = self.peers('--only', 'attention')
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'peers: ggml_attend ended with 3: no such type\n', done.stderr)
        self.assertRegex(done.stdout, rb'\ndecode-16k, f16 +ms +2\.00 +6\.00 +5\.00 +2\.50\n')
        self.assertRegex(done.stdout, rb'\ndecode-16k, q8 +ms +2\.00 +- +- +-\n')
        done = self.peers('--only', 'batch', env={**os.environ, 'PREFIX': '/no/such/tool -f 1'})
        self.assertEqual((done.returncode, done.stderr),
                         (1, b'peers: cannot start /no/such/tool: No such file or directory\n'))

    def test_peers_name_missing_tools(self):
        for name in ('bash', 'dirname', 'realpath'):
            os.symlink(shutil.which(name), self.path(name))
        done = subprocess.run([SOURCE / 'bench' / 'peers' / 'get_llama.sh'], capture_output=True,
                              check=False, env={'PATH': self.folder.name,
                                                'PEERS_CACHE': self.path('cache')})
        self.assertEqual((done.returncode, done.stdout, done.stderr), (
            1, b'', b'peers: cmake is missing: scripts/setup.sh peers installs it\n'))

    def test_model_shares(self):
        """With --shared the sequences are forks of one; the row has the same form."""
        for more in ([], ['--shared'], ['--shared', '--no-cascade']):
            out = self.quire('bench', 'model', '-m', tiny('bench'), '--depth', '40', '--batch', '3',
                             '--prompt', '4', '--generate', '4', '--json', *more)[0]
            got = json.loads(out)
            self.assertEqual((got['shared'], got['cascade']),
                             ('--shared' in more, '--no-cascade' not in more))
            row, = got['rows']
            self.assertEqual((row['depth'], row['batch']), (40, 3))
            self.assertGreater(row['gen_tok_s'], 0)
        for more in (['--no-cascade'], ['--shared', '--layout', 'contiguous']):
            self.refuses('bench', 'model', '-m', tiny('bench'), *more, status=USAGE,
                         says=more[0])

    def test_rows(self):
        """The rows of docs/performance.md come from what --json prints."""
        path = self.path('linear.json')
        with open(path, 'wb') as file:
            file.write(self.quire('bench', 'linear', '--quick', '--json', '--only', 'q4_1')[0])
        done = subprocess.run([sys.executable, SOURCE / 'bench' / 'rows.py', path],
                              capture_output=True, check=True)
        rows = [line for line in done.stdout.decode().splitlines() if line.startswith('| `')]
        self.assertEqual([row.split('`')[1] for row in rows],
                         ['linear-q4_1-1', 'linear-q4_1-32', 'linear-q4_1-512'])
        for row in rows:
            self.assertRegex(row, r'^\| `[^`]+` \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| 0\.[0-9]+ \| '
                                  r'(memory|products) \|$')


if __name__ == '__main__':
    unittest.main()
