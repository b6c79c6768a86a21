# test_examples.py - the examples that run a model: what they print is true.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import os
import re
import struct
import subprocess
import unittest

from cli import BINARY, Case, TIMEOUT_S, tiny

MODEL = tiny('chat')
BASE = tiny('base', '--base-model')
WINDOWS = tiny('gemma3_5', '--arch', 'gemma3', '--layers', '7', '--vocab', '512', '--seed', '5')
REAL = os.environ.get('QUIRE_TEST_MODEL')
PROMPT = 'When a reader asks for a page, the binder knows which quire holds it.'


class Example(Case):
    def example(self, name, *arguments, status=0):
        done = subprocess.run([BINARY / f'example-{name}', *arguments], capture_output=True,
                              timeout=4 * TIMEOUT_S, check=False)
        self.assertEqual(done.returncode, status, (name, arguments, done.stderr))
        if status == 0:
            self.assertEqual(done.stderr, b'')
        return done.stdout.decode(errors='replace'), done.stderr.decode(errors='replace')

    def run_json(self, model, *arguments):
        return json.loads(self.quire('run', '-m', model, '--json', *arguments)[0])

    def numbers(self, pattern, text):
        match = re.search(pattern, text)
        self.assertIsNotNone(match, (pattern, text))
        return tuple(map(int, match.groups()))

    def wrong(self, name, largest):
        """Bad usage is one line and status 2; a bad file or a long text one line and status 1."""
        for arguments in ([], [MODEL], [MODEL, 'hi', '0'], [MODEL, 'hi', 'x'], [MODEL, 'hi', '-1'],
                          [MODEL, 'hi', str(largest + 1)], [MODEL, 'hi', '1', '0'],
                          [MODEL, 'hi', '1', '5000'], [MODEL, 'hi', '1', '1', '1'],
                          [MODEL, 'hi', '']):
            out, err = self.example(name, *arguments, status=2)
            self.assertEqual(out, '')
            self.assertRegex(err, r'\Ausage: [^\n]+\n\Z', arguments)
        for arguments, says in (([self.path('none.gguf'), 'hi'], 'none.gguf'),
                                ([self.write('text', 'no model'), 'hi'], 'text'),
                                ([MODEL, 'who has the sheets? ' * 900], 'longer than'),
                                ([MODEL, b'\xff'], 'UTF-8'), ([BASE, ''], 'no token')):
            out, err = self.example(name, *arguments, status=1)
            self.assertEqual(out, '')
            self.assertRegex(err, rf'\A{name}: [^\n]+\n\Z', arguments)
            self.assertIn(says, err)


class Parallel(Example):
    def blocks(self, prompt, answers):
        """Blocks of 16 that sequences of these tokens hold together, and alone."""
        together, alone, ends = set(), 0, 0
        for output in answers:
            tokens = tuple(prompt + output[:-1])  # the last one is not computed any more
            full = len(tokens) // 16
            together |= {tokens[:16 * (i + 1)] for i in range(full)}
            alone += math.ceil(len(tokens) / 16)
            if len(tokens) % 16 and len(output) > 1:
                ends += 1  # a copy of its own
        whole = [output for output in answers if len(output) == 1]
        return len(together) + ends + bool(whole and len(prompt) % 16), alone

    def check(self, model, count, tokens):
        """Answer i is what run gives with seed i."""
        out, _ = self.example('parallel', model, PROMPT, str(count), str(tokens))
        *texts, rest = re.split(r'^--- .* ---\n', out, flags=re.M)[1:]
        answers = [self.run_json(model, '-p', PROMPT, '--seed', str(i + 1), '-n', str(tokens))
                   for i in range(count)]
        self.assertEqual([text.rstrip('\n') for text in texts],
                         [answer['text'].rstrip('\n') for answer in answers])
        prompt = answers[0]['prompt_ids']
        self.assertEqual(self.numbers(r'computing +(\d+)', rest), ((count - 1) * len(prompt),))
        held, would, saved = self.numbers(r'memory +(\d+) \D+ (\d+), (\d+) bytes', rest)
        self.assertEqual((held, would), self.blocks(prompt, [a['output_ids'] for a in answers]))
        if count > 1:
            self.assertGreater(saved, 0)
        self.assertLess(self.numbers(r'copied +(\d+)', rest)[0], count + 1)
        return [len(answer['output_ids']) for answer in answers]

    def test_tiny(self):
        lengths = self.check(MODEL, 12, 100)
        self.assertGreater(len(set(lengths)), 2)  # some end before the others
        self.check(MODEL, 1, 3)
        self.check(MODEL, 64, 1)

    @unittest.skipUnless(REAL, 'QUIRE_TEST_MODEL names no model')
    def test_real(self):
        self.check(REAL, 3, 24)

    def test_wrong(self):
        self.wrong('parallel', 64)


class Beam(Example):
    def beams(self, model, width, tokens, prompt=PROMPT):
        out, _ = self.example('beam', model, prompt, str(width), str(tokens))
        head, rest = out.split('---\n')[0].rsplit('---', 1)[0], out
        self.assertIn(f'checked {width} beams', rest)
        scores = [float(s) for s in re.findall(r'^(-\d+\.\d+|0\.0+|-0\.0+)  ', head, re.M)]
        self.assertEqual(scores, sorted(scores, reverse=True))
        copied, naive = self.numbers(r'copied +(\d+) \D+ (\d+)', rest)
        self.assertLessEqual(copied, naive)
        held, would = self.numbers(r'memory +(\d+) \D+ (\d+)', rest)
        self.assertLessEqual(held, would)
        return scores, head, (copied, naive, held, would)

    def test_one_beam_is_greedy(self):
        _, text, figures = self.beams(MODEL, 1, 20)
        alone = self.run_json(MODEL, '-p', PROMPT, '--temp', '0', '-n', '20')
        self.assertEqual(text.split('  ', 1)[1].rstrip('\n'), alone['text'].rstrip('\n'))
        self.assertEqual(figures[:2], (0, 0))

    def test_first_tokens(self):
        """Beams of one token are the likeliest tokens, with their log-probabilities."""
        ids = self.run_json(MODEL, '-p', PROMPT, '-n', '0')['prompt_ids']
        out = self.path('logits')
        self.quire('eval', '-m', MODEL, '--ids', self.write('i.json', json.dumps(ids)), '--logits',
                   out)
        with open(out, 'rb') as file:
            data = file.read()
        logits = struct.unpack(f'<{len(data) // 4}f', data)
        total = math.log(math.fsum(math.exp(x) for x in logits))
        want = sorted((x - total for x in logits), reverse=True)[:16]
        scores, _, _ = self.beams(MODEL, 16, 1)
        self.assertEqual(len(scores), 16)
        for score, wanted in zip(scores, want):
            self.assertAlmostEqual(score, wanted, places=5)

    def test_wider_finds_likelier(self):
        """Sharing: what a copy for every fork takes is many times what is copied."""
        one, _, _ = self.beams(MODEL, 1, 24, PROMPT * 8)
        many, _, (copied, naive, held, would) = self.beams(MODEL, 8, 24, PROMPT * 8)
        self.assertGreater(many[0], one[0])
        self.assertGreater(naive, 10 * copied)
        self.assertGreater(would, 4 * held)

    def test_windows(self):
        self.beams(WINDOWS, 5, 40)

    @unittest.skipUnless(REAL, 'QUIRE_TEST_MODEL names no model')
    def test_real(self):
        scores, _, _ = self.beams(REAL, 4, 16)
        self.assertEqual(len(scores), 4)

    def test_wrong(self):
        self.wrong('beam', 16)


class Speculate(Example):
    def check(self, model, prompt, tokens, guess):
        """The text of greedy decoding, in fewer steps by exactly what was guessed right."""
        out, _ = self.example('speculate', model, prompt, str(tokens), str(guess))
        alone = self.run_json(model, '-p', prompt, '--temp', '0', '-n', str(tokens))
        text, rest = re.split(r'^--- ', out, flags=re.M)
        self.assertEqual(text.rstrip('\n'), alone['text'].rstrip('\n'))
        self.assertEqual(self.numbers(r'(\d+) tokens, the same', rest),
                         (len(alone['output_ids']),))
        held, prompt_tokens = self.numbers(r'prompt +(\d+) of (\d+)', rest)
        self.assertEqual((held, prompt_tokens),
                         (len(alone['prompt_ids']) - 1, len(alone['prompt_ids'])))
        guessed, right = self.numbers(r'guessed +(\d+) tokens, (\d+)', rest)
        steps, plain, saved = self.numbers(r'steps +(\d+) instead of (\d+): (\d+)', rest)
        self.assertEqual(plain - steps, saved)
        self.assertEqual(saved, right)
        self.assertLessEqual(right, guessed)
        return guessed, right

    def test_tiny(self):
        total = 0
        for prompt in (PROMPT, 'Who? ' * 30, 'hi'):
            for guess in (1, 8, 31):
                guessed, right = self.check(MODEL, prompt, 60, guess)
                total += right
        self.assertGreater(total, 0)
        self.check(MODEL, PROMPT, 1, 8)

    def test_windows(self):
        """Guesses that are wrong are taken back from a window that has moved on."""
        guessed, right = self.check(WINDOWS, PROMPT, 60, 8)
        self.assertLess(right, guessed)

    @unittest.skipUnless(REAL, 'QUIRE_TEST_MODEL names no model')
    def test_real(self):
        text = 'Repeat this sentence three times: The quick brown fox jumps over the lazy dog.'
        _, right = self.check(REAL, text, 48, 8)
        self.assertGreater(right, 5)

    def test_wrong(self):
        for arguments in ([MODEL, 'hi', '8', '32'], [MODEL, 'hi', '8', 'x']):
            self.example('speculate', *arguments, status=2)
        self.wrong('speculate', 4096)


if __name__ == '__main__':
    unittest.main()
