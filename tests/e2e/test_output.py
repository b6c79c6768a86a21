# test_output.py - what the commands print, and that it does not depend on how it is computed.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import os
import re
import shutil
import struct
import subprocess
import unittest
import xml.etree.ElementTree

from cli import CLI, Case, SOURCE, tiny

MODEL = tiny('chat')
UNTIED = tiny('untied', '--untied', '--heads', '6', '--kv-heads', '3', '--rope-factors')
MANNERS = (['--layout', 'contiguous'], ['--layout', 'paged', '--block-size', '1'],
           ['--block-size', '7', '--threads', '1'], ['--block-size', '64', '--threads', '3'])
TEXT = 'When a reader asks for a page, the binder knows which quire holds it.'


class Run(Case):
    def run_json(self, *arguments, **more):
        out, err = self.quire('run', '-m', MODEL, '--json', *arguments, **more)
        self.assertEqual(err, b'')
        self.assertEqual(out.count(b'\n'), 1)
        return json.loads(out)

    def test_json(self):
        got = self.run_json('-p', 'Which quire?', '-n', '20', '--temp', '0')
        for key in ('prompt_ids', 'output_ids', 'text', 'prompt_tok_s', 'gen_tok_s', 'kv_bytes',
                    'kv_blocks', 'layout', 'seed'):
            self.assertIn(key, got)
        self.assertLessEqual(len(got['output_ids']), 20)
        positions = len(got['prompt_ids']) + len(got['output_ids']) - 1
        self.assertEqual(got['kv_blocks'], math.ceil(positions / 16))
        self.assertEqual(got['kv_bytes'], got['kv_blocks'] * 16 * 512)
        self.assertEqual(got['layout'], 'paged')
        self.assertGreater(got['prompt_tok_s'], 0)
        self.assertGreater(got['gen_tok_s'], 0)

    def test_layouts(self):
        for arguments, env, layout in (
                (['--layout', 'contiguous'], {}, 'contiguous'),
                (['--layout', 'paged'], {}, 'paged'),
                ([], {'QUIRE_PAGED_KV': '0'}, 'contiguous'), ([], {'QUIRE_PAGED_KV': '1'}, 'paged'),
                (['--layout', 'paged'], {'QUIRE_PAGED_KV': '0'}, 'paged')):
            got = self.run_json('-p', 'hi', '-n', '2', *arguments, env=env)
            self.assertEqual(got['layout'], layout, (arguments, env))

    def test_sources(self):
        """The same prompt from everywhere, and what is printed without --json."""
        path = self.write('prompt.txt', TEXT)
        want = self.run_json('-p', TEXT, '-n', '12', '--temp', '0')
        same = (['-f', path], ['-'], [], ['-f', '-'], ['--temp=0', '-f', path],
                ['--ids', self.write('ids.json', json.dumps(want['prompt_ids']))],
                ['--ids', self.write('o.json', json.dumps({'ids': want['prompt_ids']}))])
        for arguments in same:
            got = self.run_json(*arguments, '-n', '12', '--temp', '0', stdin=TEXT.encode())
            self.assertEqual(got['prompt_ids'], want['prompt_ids'], arguments)
            self.assertEqual(got['output_ids'], want['output_ids'], arguments)
        out, err = self.quire('run', '-m', MODEL, '-p', TEXT, '-n', '12', '--temp', '0')
        self.assertEqual(out.decode().rstrip('\n'), want['text'].rstrip('\n'))
        self.assertTrue(out.endswith(b'\n'))
        self.assertEqual(err, b'')

    def test_raw_and_template(self):
        ids = json.loads(self.quire('tokenize', '-m', MODEL, '-p', TEXT)[0])
        self.assertEqual(self.run_json('-p', TEXT, '-n', '0', '--raw')['prompt_ids'], ids)
        templated = self.run_json('-p', TEXT, '-n', '0')['prompt_ids']
        whole = f'<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n'
        self.assertEqual(templated,
                         json.loads(self.quire('tokenize', '-m', MODEL, '-p', whole)[0]))
        system = self.run_json('-p', TEXT, '-n', '0', '--system', 'Be brief.')['prompt_ids']
        whole = '<|im_start|>system\nBe brief.<|im_end|>\n' + whole
        self.assertEqual(system, json.loads(self.quire('tokenize', '-m', MODEL, '-p', whole)[0]))
        # A user who writes a marker does not end the turn.
        self.assertEqual(self.run_json('-p', '<|im_end|>', '-n', '0')['prompt_ids'].count(2), 1)
        self.assertEqual(self.run_json('-p', '<|im_end|>', '-n', '0', '--raw')['prompt_ids'], [2])

    def test_limits(self):
        got = self.run_json('-p', TEXT, '-n', '0')
        self.assertEqual((got['output_ids'], got['text']), ([], ''))
        self.assertEqual(len(self.run_json('-p', TEXT, '-n', '1')['output_ids']), 1)
        # The context ends it: its last position is computed, and the token after that is known.
        used = len(got['prompt_ids'])
        got = self.run_json('-p', TEXT, '-c', str(used + 5), '--temp', '0', '--raw')
        room = used + 5 - len(got['prompt_ids'])
        self.assertLessEqual(len(got['output_ids']), room + 1)
        # A person is told that the context, not the model, ended the answer.
        if got['output_ids'][-1] != 2:
            _, err = self.quire('run', '-m', MODEL, '-p', TEXT, '-c', str(used + 5), '--temp', '0',
                                '--raw')
            self.assertIn(b'the context is full', err)

    def test_seed(self):
        sampled = ['-p', TEXT, '-n', '40', '--temp', '1.5', '--top-k', '0', '--seed', '11']
        want = self.run_json(*sampled)
        self.assertEqual(want['seed'], 11)
        for manner in ([], *MANNERS):
            self.assertEqual(self.run_json(*sampled, *manner)['output_ids'], want['output_ids'])
        self.assertNotEqual(self.run_json(*sampled[:-1], '12')['output_ids'], want['output_ids'])
        # Without --seed a seed is chosen and told, and gives the text again.
        free = self.run_json(*sampled[:-2])
        again = self.run_json(*sampled[:-2], '--seed', str(free['seed']))
        self.assertEqual(free['output_ids'], again['output_ids'])
        self.assertNotEqual(free['seed'], self.run_json(*sampled[:-2])['seed'])

    def test_filters_reach_the_sampler(self):
        greedy = self.run_json('-p', TEXT, '-n', '20', '--temp', '0')['output_ids']
        for only_best in (['--top-k', '1'], ['--top-p', '0.000001'], ['--min-p', '1']):
            got = self.run_json('-p', TEXT, '-n', '20', '--temp', '2', *only_best)
            self.assertEqual(got['output_ids'], greedy, only_best)
        got = self.run_json('-p', TEXT, '-n', '60', '--temp', '0', '--repeat-penalty', '1000')
        ids = [i for i in got['output_ids'] if i not in got['prompt_ids']]
        self.assertEqual(len(ids), len(set(ids)))

    def test_text_is_utf8(self):
        """Random bytes of a random model come out as valid text, and as the same with --json."""
        for seed in range(6):
            arguments = ['-p', TEXT, '-n', '80', '--temp', '9', '--top-k', '0', '--top-p', '1',
                         '--min-p', '0', '--seed', str(seed)]
            text = self.run_json(*arguments)['text']
            out, _ = self.quire('run', '-m', MODEL, *arguments)
            self.assertEqual(out.decode('utf-8').rstrip('\n'), text.rstrip('\n'))

    def test_stats(self):
        _, err = self.quire('run', '-m', MODEL, '-p', 'hi', '-n', '4', '--stats', '--seed', '9',
                            '--kv', 'f32,bf16', '--threads', '2')
        text = err.decode()
        for part in ('prompt ', 'tokens/s', 'blocks of 16', 'paged', 'K f32', 'V bf16', 'cpu/',
                     '2 threads', 'seed 9'):
            self.assertIn(part, text)
        self.assertEqual(text.count('\n'), 4)


class Tokenize(Case):
    def test_round_trip(self):
        for text in ('', 'a', TEXT, 'naïve café 日本語 🙂\n\n\ttabs', '<|im_start|>x<|im_end|>',
                     'a\0b\r\n', ' ' * 50):
            ids, _ = self.quire('tokenize', '-m', MODEL, '-', stdin=text.encode())
            self.assertRegex(ids, rb'\A\[[0-9, ]*\]\n\Z')
            back, _ = self.quire('tokenize', '-m', MODEL, '--decode', stdin=ids)
            self.assertEqual(back, text.encode())
            self.assertEqual(self.quire('tokenize', '-m', MODEL, '-f',
                                        self.write('t', text))[0], ids)

    def test_half_characters(self):
        ids = json.loads(self.quire('tokenize', '-m', MODEL, '-p', '日')[0])
        half, _ = self.quire('tokenize', '-m', MODEL, '--decode', '-p', json.dumps(ids[:1]))
        self.assertTrue('日'.encode().startswith(half))
        self.assertLess(len(half), 3)

    def test_bos(self):
        ids = json.loads(self.quire('tokenize', '-m', MODEL, '-p', 'hi')[0])
        self.assertEqual(json.loads(self.quire('tokenize', '-m', MODEL, '-p', 'hi', '--bos')[0]),
                         [1] + ids)


class Eval(Case):
    def eval_json(self, model, *arguments, **more):
        out, err = self.quire('eval', '-m', model, '--json', *arguments, **more)
        self.assertEqual(err, b'')
        return json.loads(out)

    def test_numbers(self):
        path = self.write('text.txt', TEXT)
        ids = self.quire('tokenize', '-m', MODEL, '-f', path)[0]
        count = len(json.loads(ids))
        got = self.eval_json(MODEL, '-f', path)
        self.assertEqual(sorted(got), ['mean_nll', 'ppl', 'tokens'])
        self.assertEqual(got['tokens'], count - 1)
        self.assertAlmostEqual(math.exp(got['mean_nll']), got['ppl'], places=4)
        self.assertEqual(self.eval_json(MODEL, '--ids', self.write('i.json', ids)), got)
        self.assertEqual(self.eval_json(MODEL, '-f', '-', stdin=TEXT.encode()), got)
        text = self.quire('eval', '-m', MODEL, '-f', path)[0].decode()
        self.assertRegex(text, r'\Atokens +\d+\nmean_nll +[\d.]+\nppl +[\d.]+\n\Z')

    def test_chunks(self):
        path = self.write('text.txt', TEXT * 4)
        count = len(json.loads(self.quire('tokenize', '-m', MODEL, '-f', path)[0]))
        got = self.eval_json(MODEL, '-f', path, '-c', '10')
        chunks = math.ceil(count / 10)
        self.assertEqual(got['tokens'], count - chunks)
        self.assertEqual(self.eval_json(MODEL, '-f', path, '-c', '10', '--chunks', '3')['tokens'],
                         27)
        self.assertEqual(self.eval_json(MODEL, '-f', path, '-c', '10', '--chunks', '99999'), got)

    def test_bos(self):
        """Where the file asks for BOS, every chunk begins with it, and all tokens count."""
        key = b'tokenizer.ggml.add_bos_token'
        with open(MODEL, 'rb') as file:
            content = bytearray(file.read())
        content[content.index(key) + len(key) + 4] = 1
        model = self.write('bos.gguf', bytes(content))
        path = self.write('text.txt', TEXT)
        ids = json.loads(self.quire('tokenize', '-m', model, '-f', path)[0])
        for chunk in ('2', '7', '100'):
            self.assertEqual(self.eval_json(model, '-f', path, '-c', chunk)['tokens'], len(ids))
        got = self.eval_json(model, '-f', path)
        with_bos = self.write('i.json', json.dumps([1] + ids))
        self.assertEqual(self.eval_json(model, '--ids', with_bos), got)
        for text in (TEXT, '<|im_start|>' + TEXT):  # never two of them
            raw = self.quire('run', '-m', model, '--raw', '-p', text, '-n', '0', '--json')[0]
            self.assertEqual(json.loads(raw)['prompt_ids'], [1] + ids)

    def test_compare(self):
        """Each format's figures are those of a run with it alone; the first differs in nothing."""
        path, svg = self.write('text.txt', TEXT * 8), self.path('kv.svg')
        names = ['f16', 'f32', 'q8', 'q8,q4', 'q4', 'f16']
        got = self.eval_json(UNTIED, '-f', path, '-c', '150', '--compare', ' '.join(names), '--svg',
                             svg)
        self.assertEqual([row['name'] for row in got['formats']], names)
        for row in got['formats']:
            alone = self.eval_json(UNTIED, '-f', path, '-c', '150', '--kv', row['name'])
            self.assertEqual(alone['tokens'], got['tokens'])
            self.assertAlmostEqual(alone['mean_nll'], row['mean_nll'], places=12)
            self.assertAlmostEqual(row['ppl'], math.exp(row['mean_nll']))
            self.assertGreater(row['tok_s'], 0)
        first, f32, q8, mixed, q4, again = got['formats']
        for row in (first, again):
            self.assertEqual((row['kl_mean'], row['kl_99'], row['ppl_more_pct'], row['top1_pct']),
                             (0, 0, 0, 100))
        self.assertEqual([row['bytes_per_token'] for row in got['formats']],
                         [768, 1536, 408, 348, 288, 768])
        self.assertLess(f32['kl_mean'], q8['kl_mean'])
        self.assertLess(q8['kl_mean'], mixed['kl_mean'])
        self.assertLess(mixed['kl_mean'], q4['kl_mean'])
        self.assertLess(q4['kl_mean'], q4['kl_99'])
        with open(svg, encoding='utf-8') as file:
            drawing = xml.etree.ElementTree.fromstring(file.read())
        texts = [element.text for element in drawing.iter() if element.tag.endswith('text')]
        for name in names:
            self.assertIn(name, texts)
        text = self.quire('eval', '-m', UNTIED, '-f', path, '-c', '150', '--compare', 'f16 q4')[0]
        self.assertRegex(text.decode(), r'\Atokens +\d+\nK/V .*\nf16 .*\nq4 .*\n\Z')

    def test_rotation(self):
        """It changes what q4 gives, unless it is what q4 has anyway, and nothing of f16."""
        path = self.write('text.txt', TEXT * 4)
        nll = {}
        for kv in ('f16', 'q8', 'q4'):
            for how in ('auto', 'none', 'hadamard'):
                nll[kv, how] = self.eval_json(UNTIED, '-f', path, '--kv', kv, '--kv-rotation',
                                              how)['mean_nll']
        self.assertEqual(nll['f16', 'none'], nll['f16', 'hadamard'])
        self.assertEqual(nll['q8', 'none'], nll['q8', 'auto'])
        self.assertEqual(nll['q4', 'hadamard'], nll['q4', 'auto'])
        for kv in ('q8', 'q4'):
            self.assertNotEqual(nll[kv, 'none'], nll[kv, 'hadamard'])

    def test_logits(self):
        """The same bytes in every manner; the likeliest is what run writes; one token is enough."""
        for model in (MODEL, UNTIED):
            ids = [5, 9, 300, 77, 8] * 12
            path, out = self.write('i.json', json.dumps(ids)), self.path('out.f32')
            want = None
            for manner in ([], *MANNERS):
                self.eval_json(model, '--ids', path, '--logits', out, *manner)
                with open(out, 'rb') as file:
                    got = file.read()
                self.assertEqual(want or got, got, manner)
                want = got
            logits = struct.unpack(f'<{len(want) // 4}f', want)
            run = json.loads(self.quire('run', '-m', model, '--json', '--ids', path, '-n', '1',
                                        '--temp', '0')[0])
            self.assertEqual(run['output_ids'], [logits.index(max(logits))])
        got = self.eval_json(MODEL, '--ids', self.write('i.json', '[7]'), '--logits', out)
        self.assertEqual(got, {'tokens': 0, 'mean_nll': None, 'ppl': None})
        self.assertEqual(os.path.getsize(out), 384 * 4)
        self.assertEqual(sorted(os.listdir(self.folder.name)), ['i.json', 'out.f32'])


class Memory(Case):
    @unittest.skipUnless(os.environ.get('QUIRE_TEST_MODEL'), 'QUIRE_TEST_MODEL names no model')
    def test_model_is_resident_once(self):
        model = os.environ['QUIRE_TEST_MODEL']
        pid = os.posix_spawn(CLI, [CLI, 'run', '-m', model, '-p', 'hi', '-n', '1'], os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)])
        _, status, usage = os.wait4(pid, 0)
        self.assertEqual(status, 0)
        self.assertLess(usage.ru_maxrss * 1024, 1.7 * os.path.getsize(model))


class Rest(Case):
    def test_info(self):
        got = json.loads(self.quire('info', UNTIED, '--json')[0])
        want = {'architecture': 'llama', 'layers': 2, 'embedding': 256, 'heads': 6, 'kv_heads': 3,
                'head_dim': 32, 'feed_forward': 512, 'vocabulary': 384, 'context_length': 4096}
        self.assertEqual({key: got[key] for key in want}, want)
        self.assertEqual(got['kv_bytes_per_token'],
                         {'f32': 2 * 3 * 32 * 2 * 4, 'f16': 768, 'bf16': 768, 'q8': 408, 'q4': 288})
        self.assertEqual(sum(kind['count'] for kind in got['tensor_types'].values()),
                         got['tensors'])
        self.assertEqual(sum(kind['bytes'] for kind in got['tensor_types'].values()),
                         got['tensor_bytes'])
        self.assertGreater(got['tokens_in_free_memory']['f16'], 0)
        text = self.quire('info', UNTIED)[0].decode()
        for part in ('llama', 'Quire tiny', '6, with 3', 'Q4_K', '768 bytes'):
            self.assertIn(part, text)
        self.assertNotIn('indow', text)

    def test_bench(self):
        got = json.loads(self.quire('bench', 'model', '-m', MODEL, '--prompt', '40', '--generate',
                                    '5', '--depth', '0,30', '--batch', '1,3', '--json')[0])
        self.assertEqual([(row['depth'], row['batch']) for row in got['rows']],
                         [(0, 1), (0, 3), (30, 1), (30, 3)])
        self.assertEqual((got['bench'], got['dtype_k'], got['dtype_v']), ('model', 'f16', 'f16'))
        for key in ('processor', 'level', 'products', 'threads'):
            self.assertTrue(got[key], key)
        for row in got['rows']:
            self.assertGreater(row['prompt_tok_s'], 0)
            self.assertGreater(row['gen_tok_s'], 0)
        self.refuses('bench', 'model', '-m', MODEL, '--depth', '4000', says='4096')
        for backend in ('cpu', 'none'):
            got = json.loads(self.quire('bench', 'cache', '--backend', backend, '--runs', '1',
                                        '--json')[0])
            self.assertEqual(got['backend'], backend)
            self.assertLessEqual(got['meta_bytes_per_block'], 64)
            for key in ('alloc_free_ns', 'step64_us', 'fork_100k_us', 'match_100k_ms',
                        'match_100k_of_1m_ms', 'evict_1m_s'):
                self.assertGreater(got[key], 0, key)
            self.assertIn('match_fanout_us', got)
            self.assertTrue(0 < got['waste_pct'] < 2)
        self.refuses('bench', 'cache', '--backend', 'gpu', says='gpu')

    def test_info_cpu(self):
        """What is told is what is made, whatever the cap."""
        levels = json.loads(self.quire('info', '--cpu', '--json')[0])['levels']
        self.assertEqual([level['name'] for level in levels[:2]], ['ref', 'generic'])
        self.assertEqual({level['name'] for level in levels},
                         {'ref', 'generic', 'avx2', 'avx512', 'avx512bf16', 'amx', 'neon',
                          'neonbf16'})
        for level in levels:
            self.assertEqual(level['runs'], level['lacks'] is None)
            if (level['lacks'] or '').startswith('it is for'):
                continue  # no name that this build knows
            got = json.loads(self.quire('info', '--cpu', '--json',
                                        env={'QUIRE_CPU': level['name']})[0])
            if level['runs']:
                self.assertEqual((got['level'], got['level_why']),
                                 (level['name'], 'QUIRE_CPU caps it'))
            else:
                self.assertNotEqual(got['level'], level['name'])
            self.assertGreaterEqual(got['threads'], 1)
        text = self.quire('info', '--cpu', env={'QUIRE_CPU': 'generic'})[0].decode()
        self.assertIn('\nlevel         generic (QUIRE_CPU caps it)\n', text)
        self.assertRegex(text, r'\n\* generic +products of f32\n')
        self.refuses('info', '--cpu', MODEL, status=2, says='--cpu')
        self.refuses('info', '--cpu', env={'QUIRE_CPU': 'sse9'}, says='sse9')

    def test_help(self):
        self.assertRegex(self.quire('--version')[0], rb'\Aquire \d+\.\d+\.\d+\n\Z')
        for command in ('', 'run', 'tokenize', 'eval', 'info', 'plan', 'trace', 'trace replay',
                        'bench', 'bench model', 'bench attn', 'bench linear', 'bench roof',
                        'bench cache', 'bench evict'):
            out, err = self.quire(*command.split(), '--help')
            self.assertEqual(err, b'')
            self.assertIn(b'example:\n  quire', out)
            self.assertLessEqual(max(map(len, out.decode().splitlines())), 100)

    def test_documented_options(self):
        """Every option that --help lists is in the man page and completed, and the other way."""
        with open(SOURCE / 'docs' / 'man' / 'quire.1', encoding='utf-8') as file:
            manual = file.read().replace('\\-', '-')
        completion = SOURCE / 'tools' / 'completion' / 'quire.bash'
        for command in ('run', 'tokenize', 'eval', 'info', 'plan', 'trace replay', 'bench model',
                        'bench attn', 'bench linear', 'bench roof', 'bench cache', 'bench evict'):
            out = self.quire(*command.split(), '--help')[0].decode()
            listed = set(re.findall(r'^  (--?[a-z-]+)', out, re.M))
            section = re.search(rf'^\.SS {command}\n(.*?)(?=^\.S)', manual, re.M | re.S)
            self.assertIsNotNone(section, command)
            told = set(re.findall(r'^\.B[RI]? "?(--?[a-z-]+)', section[1], re.M))
            self.assertEqual(told, listed - {'--help'}, command)
            words = subprocess.run(['bash', '-c', '. "$0"; _quire_words "$1"', completion, command],
                                   capture_output=True, check=True).stdout.decode().split()
            self.assertEqual(set(words), listed, command)

    def test_completion_of_values(self):
        completion = SOURCE / 'tools' / 'completion' / 'quire.bash'
        script = '. "$0"; COMP_WORDS=(quire "$@"); COMP_CWORD=$#; _quire; echo "${COMPREPLY[@]}"'
        for words, values in (('bench cache --backend', 'cpu none'),
                              ('run --kv', 'f32 f16 bf16 q8 q4'),
                              ('trace replay --eviction', 'lru cost')):
            done = subprocess.run(['bash', '-c', script, completion, *words.split(), ''],
                                  capture_output=True, check=True)
            self.assertEqual(done.stdout.decode().strip(), values)

    def test_build_says_its_usage(self):
        """Nothing is built or installed for words that mean nothing."""
        for arguments in ([], ['relase']):
            done = subprocess.run([SOURCE / 'scripts' / 'build.sh', *arguments],
                                  capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (2, b''))
            self.assertRegex(done.stderr, rb'\Ausage: scripts/build.sh release[^\n]+\n\Z')

    @unittest.skipIf(shutil.which('make') is None, 'make is missing')
    def test_make_names_the_models(self):
        outside = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
        for target in ('demo', 'bench', 'bench-peers'):
            done = subprocess.run(['make', target, 'MODEL=gemma'], cwd=SOURCE, env=outside,
                                  capture_output=True)
            self.assertNotEqual(done.returncode, 0)
            self.assertEqual(done.stdout, b'')
            self.assertIn(b'no file gemma; MODEL is smollm2, gemma3-270m, or', done.stderr)


if __name__ == '__main__':
    unittest.main()
