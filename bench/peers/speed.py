#!/usr/bin/env python3
# speed.py - tokens/s and attention of Quire beside those of llama.cpp, as one table.
# SPDX-License-Identifier: Apache-2.0
"""Prints tokens/s and times of attention of Quire beside llama.cpp's; bench/llama.sh runs it.

The same file, threads, K/V types and depths on both sides, one after the other; llama.cpp is
measured with flash attention and without it, where it can be; a ratio is against its better one,
and over 1 where Quire is faster."""
import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys

PROMPT, GENERATE = 512, 64
DEPTHS = (0, 7000)
KV = (('f16', 'f16'), ('q8', 'q8_0'))  # Quire's name, ggml's
ATTEND = (('f16', 'f16'), ('bf16', 'bf16'), ('q8', 'q8_0'), ('q4', 'q4_0'))
WORKS = ('decode-16k', 'prefill-512-8k')
BATCH, BATCH_PROMPT = 32, 128


class Peers:
    def __init__(self, args):
        self.args = args
        self.prefix = shlex.split(os.environ.get('PREFIX', ''))
        self.threads = str(args.threads)
        level = {} if args.level == 'native' else {'QUIRE_CPU': args.level}
        self.quire_env = {**os.environ, **level}
        self.llama_env = {**os.environ, 'LD_LIBRARY_PATH': f'{args.llama}/bin'}
        self.rows = []

    def run(self, command, env):
        """The output of a command; nothing, and its last words, where it fails."""
        done = subprocess.run([*self.prefix, *command], env=env, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            last = (done.stderr.strip() or 'no message').splitlines()[-1]
            print(f'peers: {os.path.basename(command[0])} ended with {done.returncode}: {last}',
                  file=sys.stderr)
            return None
        return done.stdout

    def quire(self, *arguments):
        out = self.run([self.args.quire, 'bench', *arguments, '--threads', self.threads, '--json'],
                       self.quire_env)
        return json.loads(out) if out else None

    def llama_bench(self, kv, depth, flash):
        out = self.run([f'{self.args.llama}/bin/llama-bench', '-m', self.args.model, '-t',
                        self.threads, '-p', str(PROMPT), '-n', str(GENERATE), '-d', str(depth),
                        '-r', str(self.args.runs), '-ctk', kv, '-ctv', kv, '-fa', str(flash),
                        '-ngl', '0', '-o', 'json'], self.llama_env)
        figures = {}
        for test in json.loads(out) if out else []:
            name = 'generate' if test['n_gen'] else 'prompt'
            figures[name] = statistics.median(test['samples_ts'])
        return figures

    def add(self, work, unit, ours, flash, plain):
        better = [value for value in (flash, plain) if value]
        best = (min(better) if unit == 'ms' else max(better)) if better else None
        ratio = None
        if ours and best:
            ratio = best / ours if unit == 'ms' else ours / best
        self.rows.append({'work': work, 'unit': unit, 'quire': ours, 'llama_flash': flash,
                          'llama_plain': plain, 'ratio': ratio})
        if not self.args.json:
            cells = [f'{value:12.2f}' if value else f'{"-":>12}'
                     for value in (ours, flash, plain, ratio)]
            print(f'{work:34} {unit:>6} ' + ' '.join(cells), flush=True)

    def models(self):
        for ours_kv, theirs_kv in KV:
            for depth in DEPTHS:
                got = self.quire('model', '-m', self.args.model, '--kv', ours_kv, '--depth',
                                 str(depth), '--prompt', str(PROMPT), '--generate', str(GENERATE),
                                 '--runs', str(max(3, self.args.runs)))
                flash = self.llama_bench(theirs_kv, depth, 1)
                # Without flash attention llama.cpp refuses a quantised V.
                plain = self.llama_bench(theirs_kv, depth, 0) if theirs_kv == 'f16' else {}
                row = got['rows'][0] if got else {}
                for work, key in (('prompt', 'prompt_tok_s'), ('generate', 'gen_tok_s')):
                    count = PROMPT if work == 'prompt' else GENERATE
                    self.add(f'{work} {count} at {depth}, {ours_kv}', 'tok/s', row.get(key),
                             flash.get(work), plain.get(work))

    def batched(self, flash):
        positions = BATCH * (BATCH_PROMPT + GENERATE)
        out = self.run([f'{self.args.llama}/bin/llama-batched-bench', '-m', self.args.model, '-t',
                        self.threads, '-tb', self.threads, '-c', str(positions), '-npp',
                        str(BATCH_PROMPT), '-ntg', str(GENERATE), '-npl', str(BATCH), '-fa', flash,
                        '-ngl', '0', '--output-format', 'jsonl'], self.llama_env)
        lines = re.findall(r'^\{.*\}$', out or '', re.M)
        return json.loads(lines[-1])['speed_tg'] if lines else None

    def batch(self):
        got = self.quire('model', '-m', self.args.model, '--batch', str(BATCH), '--depth',
                         str(BATCH_PROMPT), '--prompt', '1', '--generate', str(GENERATE), '--runs',
                         str(max(3, self.args.runs)))
        self.add(f'generate, {BATCH} sequences of {BATCH_PROMPT}', 'tok/s',
                 got['rows'][0]['gen_tok_s'] if got else None, self.batched('on'),
                 self.batched('off'))

    def attention(self):
        ring = None
        for work in WORKS:
            for ours_kv, theirs_kv in ATTEND:
                got = self.quire('attn', '--only', f'{work}-{ours_kv}-paged', '--runs',
                                 str(max(3, self.args.runs)))
                if got and ring is None:
                    ring = got['ring_bytes'] >> 20
                row = got['rows'][0] if got and got['rows'] else {}
                out = self.run([f'{self.args.llama}/ggml_attend', str(ring or 1024),
                                str(self.args.runs), self.threads, work, theirs_kv],
                               self.llama_env)
                theirs = json.loads(out)['rows'][0] if out else {}
                self.add(f'{work}, {ours_kv}', 'ms', row.get('ms'), theirs.get('flash_ms'),
                         theirs.get('plain_ms'))


def processor():
    with open('/proc/cpuinfo', encoding='utf-8') as file:
        names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    return names[0] if names else 'unknown processor'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quire', required=True)
    parser.add_argument('--llama', required=True, help='what get_llama.sh printed')
    parser.add_argument('--level', default='native')
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--only', choices=('models', 'batch', 'attention'))
    parser.add_argument('--json', action='store_true')
    parser.add_argument('model')
    args = parser.parse_args()
    with open(f'{args.llama}/version', encoding='utf-8') as file:
        version = file.read().strip()
    peers = Peers(args)
    if not args.json:
        print(f'{processor()}, {args.level}, {args.threads} threads; llama.cpp {version}')
        print(f'{"":34} {"":>6} ' + ' '.join(f'{name:>12}' for name in (
            'quire', 'llama flash', 'llama plain', 'ratio')))
    for part in (peers.models, peers.batch, peers.attention):
        if args.only in (None, part.__name__):
            part()
    if args.json:
        json.dump({'bench': 'peers', 'processor': processor(), 'level': args.level,
                   'threads': args.threads, 'llama': version, 'rows': peers.rows}, sys.stdout,
                  indent=1)
        print()


if __name__ == '__main__':
    main()
