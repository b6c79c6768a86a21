# test_gemma3.py - the command with a model of windows, cache groups and a SentencePiece vocabulary.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import unittest

from cli import Case, SOURCE, tiny

GEMMA = ('--arch', 'gemma3', '--layers', '7', '--vocab', '512')
MODEL = tiny('gemma3', *GEMMA)
BASE = tiny('gemma3_base', *GEMMA, '--base-model')
GROUPS = 7  # one layer of seven sees everything, so every group has one
TEXT = 'When a reader asks for a page, the binder knows which quire holds it.'


class Gemma3(Case):
    def run_json(self, model, *arguments):
        return json.loads(self.quire('run', '-m', model, '--json', '-n', '20', '--temp', '0',
                                     *arguments)[0])

    def test_same_in_every_manner(self):
        want = self.run_json(MODEL, '-p', TEXT)
        positions = len(want['prompt_ids']) + len(want['output_ids']) - 1
        self.assertGreater(positions, 16)  # twice the window
        self.assertEqual(want['kv_blocks'], math.ceil(positions / 16) * GROUPS)
        for manner in (['--layout', 'contiguous'], ['--block-size', '1'],
                       ['--block-size', '7', '--threads', '1']):
            self.assertEqual(self.run_json(MODEL, '-p', TEXT, *manner)['output_ids'],
                             want['output_ids'], manner)

    def test_memory_is_counted_for_all_groups(self):
        """A block of a group is 1 layer x K and V x 2 heads x 16 positions x 32 elements of f16."""
        block = 2 * 2 * 16 * 32 * 2
        self.run_json(MODEL, '-p', TEXT, '-c', '64', '--kv-memory', str(4 * GROUPS * block))
        said = self.refuses('run', '-m', MODEL, '-p', TEXT, '-c', '64', '--kv-memory',
                            str(4 * GROUPS * block - 1))
        self.assertIn(f'needs {4 * GROUPS * block} bytes', said)

    def test_template(self):
        ids = self.run_json(MODEL, '-p', 'hi')['prompt_ids']
        text = '<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n'
        self.assertEqual(ids, json.loads(self.quire('tokenize', '-m', MODEL, '-p', text)[0]))

    def test_no_template(self):
        """A base model completes the text behind BOS, and says so once."""
        out, err = self.quire('run', '-m', BASE, '-p', TEXT, '-n', '4', '--json')
        self.assertRegex(err, rb'\Aquire: [^\n]+ has no chat template: [^\n]+\n\Z')
        self.assertEqual(json.loads(out)['prompt_ids'], json.loads(
            self.quire('tokenize', '-m', BASE, '-p', TEXT, '--bos')[0]))

    def test_tokenizer(self):
        """The ids that SentencePiece gave, and back."""
        golden = json.loads((SOURCE / 'tests/golden/tiny/gemma3_4_2.json').read_text())
        for case in golden['tokenizer']:
            ids, _ = self.quire('tokenize', '-m', MODEL, '-', stdin=case['text'].encode())
            self.assertEqual(json.loads(ids), case['ids'])
            back, _ = self.quire('tokenize', '-m', MODEL, '--decode', stdin=ids)
            self.assertEqual(back.decode(), case['text'].replace('\u2581', ' '))

    def test_info(self):
        got = json.loads(self.quire('info', MODEL, '--json')[0])
        self.assertEqual(got['architecture'], 'gemma3')
        self.assertEqual([group['window'] for group in got['groups']], [0] + [8] * 6)
        self.assertEqual(sorted(sum((group['layers'] for group in got['groups']), [])),
                         list(range(7)))
        text = self.quire('info', MODEL)[0].decode()
        self.assertRegex(text, r'cache groups +7\n')
        self.assertRegex(text, r'all +1 layer in 1 group sees every position\n')
        self.assertRegex(text, r'window +6 layers in 6 groups see 8 positions, rotary base 10000\n')
        self.assertIn('quire plan', text)


if __name__ == '__main__':
    unittest.main()
