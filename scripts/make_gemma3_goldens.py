#!/usr/bin/env python3
# make_gemma3_goldens.py - writes tests/golden/gemma3 from the float64 pass and SentencePiece.
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/gemma3: what the reference pass computes for the real Gemma 3 of 270M.

The reference pass is not part of this project (tests/golden/README.md says what it is). It takes
about half an hour and 16 GB. A row of logits has 262,144 values: the 32 largest of the last row of
each prompt are kept, and the logarithm of the sum of the exponentials of all.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy

import reference_spm

OUT = pathlib.Path(__file__).resolve().parent.parent / 'tests' / 'golden' / 'gemma3'
TOP = 32
BOS, END = 2, 1
TEXTS = [('france', 'The capital of France is', 16),
         ('quire', 'A quire is a gathering of pages. In a printing shop of the sixteenth', 24),
         ('code', 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n'
                  '    if n < 2:\n        return n\n', 24),
         ('unicode', 'Translate: naïve café 日本語 🙂 -> English:', 16)]
LIKELIHOOD_TOKENS = 1024
LONG_FIRST, LONG_TOKENS, LONG_GREEDY = 30000, 720, 8  # over the window of 512


def prompts_of(tokenizer, text):
    """text: The Devil's Dictionary."""
    ids = tokenizer.encode(text, False)
    prompts = [{'name': name, 'text': words, 'ids': [BOS] + tokenizer.encode(words, False),
                'greedy': greedy} for name, words, greedy in TEXTS]
    prompts += [{'name': 'one_token', 'ids': [BOS], 'greedy': 16},
                {'name': 'window', 'ids': [BOS] + ids[LONG_FIRST:LONG_FIRST + LONG_TOKENS - 1],
                 'greedy': LONG_GREEDY}]
    likelihood = [{'name': 'devil_1024', 'ids': [BOS] + ids[:LIKELIHOOD_TOKENS - 1]}]
    return {'eos': END, 'prompts': prompts, 'nll': likelihood}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('oracle', help='folder of the reference pass (golden.py)')
    parser.add_argument('model', help='the GGUF file')
    parser.add_argument('text', help="The Devil's Dictionary")
    args = parser.parse_args()
    tokenizer = reference_spm.from_gguf(args.model)
    prompts = prompts_of(tokenizer, pathlib.Path(args.text).read_text(encoding='utf-8'))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / 'prompts.json').write_text(json.dumps(prompts))
        subprocess.run([sys.executable, 'golden.py', pathlib.Path(args.model).resolve(),
                        work / 'prompts.json', work], cwd=args.oracle, check=True)
        found = json.loads((work / 'golden.json').read_text())
        for prompt in found['prompts']:
            row = numpy.fromfile(work / f"{prompt['name']}.logits.f32", '<f4').astype('f8')
            largest = numpy.argsort(-row)[:TOP]
            prompt['top'] = [[int(i), round(float(row[i]), 6)] for i in largest]
            prompt['lse'] = round(float(row.max() + numpy.log(numpy.exp(row - row.max()).sum())), 6)
            del prompt['top5'], prompt['top5_logits']
    del found['tokenizer']
    OUT.mkdir(exist_ok=True)
    (OUT / 'golden.json').write_text(json.dumps(found, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    main()
