#!/usr/bin/env python3
# make_goldens.py - writes tests/golden/tiny from the float64 reference pass.
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/tiny: for each variant of the tiny model, what the reference pass computes.

The reference pass is not part of this project (tests/golden/README.md says what it is). Run this
with a Python that has its packages, only when make_tiny_model.py or the variants change.
"""
import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
VARIANTS = {  # name: arguments of make_tiny_model.py
    'mixed_4_2': ['--heads', '4', '--kv-heads', '2', '--head-dim', '64'],
    'f32_4_4': ['--type', 'F32', '--heads', '4', '--kv-heads', '4', '--seed', '2'],
    'q4_1_4_1': ['--type', 'Q4_1', '--heads', '4', '--kv-heads', '1', '--head-dim', '80',
                 '--seed', '3'],
    'mixed_9_3': ['--heads', '9', '--kv-heads', '3', '--head-dim', '32', '--layers', '3',
                  '--vocab', '1001', '--untied', '--seed', '4'],
    # 7 layers, as the sixth is the first that sees more than its window.
    'gemma3_4_2': ['--arch', 'gemma3', '--heads', '4', '--kv-heads', '2', '--head-dim', '32',
                   '--layers', '7', '--vocab', '512', '--seed', '5'],
    'gemma3_6_1': ['--arch', 'gemma3', '--heads', '6', '--kv-heads', '1', '--head-dim', '80',
                   '--layers', '7', '--vocab', '512', '--type', 'Q8_0', '--untied', '--seed', '6'],
}
TEXTS = ['A quire is a gathering of pages.', 'naïve café: 12 quires\n\n  (日本語 🙂)\tend',
         '<|im_start|>user\nWhich quire?<|im_end|>\n']
GEMMA_TEXTS = [*TEXTS[:2], '<start_of_turn>user\nWhich  quire?<end_of_turn>\n\n',
               ' quire\u2581of <eos>']
LONG = {'name': 'ids', 'ids': [(i * i * 7 + 3 * i) % 384 for i in range(150)], 'greedy': 8}


def prompts_of(model, options):
    """What the reference pass is asked; its tokenizer knows byte-level vocabularies only."""
    if 'gemma3' not in options:
        return {'tokenizer': TEXTS, 'prompts': [{'name': 'text', 'text': TEXTS[0], 'greedy': 24},
                                                LONG]}, None
    import reference_spm
    tokenizer = reference_spm.from_gguf(model)
    cases = [{'text': text, 'ids': tokenizer.encode(text, True)} for text in GEMMA_TEXTS]
    return {'prompts': [{'name': 'text', 'ids': [2] + cases[0]['ids'], 'greedy': 24}, LONG]}, cases


def golden(variant, options, oracle, out):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = work / 'model.gguf'
        subprocess.run([sys.executable, HERE / 'make_tiny_model.py', model, *options], check=True)
        prompts, cases = prompts_of(model, options)
        (work / 'prompts.json').write_text(json.dumps(prompts))
        subprocess.run([sys.executable, 'golden.py', model, work / 'prompts.json', work],
                       cwd=oracle, check=True)
        found = json.loads((work / 'golden.json').read_text())
        record = {'argv': options, 'sha256': hashlib.sha256(model.read_bytes()).hexdigest(),
                  'tokenizer': cases or found['tokenizer'], 'prompts': found['prompts']}
        (out / f'{variant}.json').write_text(json.dumps(record, ensure_ascii=False) + '\n')
        logits = b''.join((work / f"{prompt['name']}.logits.f32").read_bytes()
                          for prompt in prompts['prompts'])
        (out / f'{variant}.logits.f32').write_bytes(logits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('oracle', help='folder of the reference pass (golden.py)')
    oracle = parser.parse_args().oracle
    for variant, options in VARIANTS.items():
        golden(variant, options, oracle, HERE.parent / 'tests' / 'golden' / 'tiny')


if __name__ == '__main__':
    main()
