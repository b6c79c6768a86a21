#!/usr/bin/env python3
# speed.py - tokens/s and attention of Quire beside those of llama.cpp, as one table.
# SPDX-License-Identifier: Apache-2.0
"""Prints tokens/s and times of attention of Quire beside llama.cpp's; bench/llama.sh runs it.

The same file, threads, K/V types and depths on both sides, one after the other; llama.cpp is
measured with flash attention and without it, where it can be; a ratio is against its better one,
and over 1 where Quire is faster. A command that fails leaves its cells empty, and status 1."""
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
SMALLER = ('ms', 'x')  # units of which less is better
# K/V by Quire's name and by ggml's.
ATTEND = (('f16', 'f16'), ('bf16', 'bf16'), ('q8', 'q8_0'), ('q4', 'q4_0'))
WORKS = ('decode-16k', 'prefill-512-8k')
BATCH, BATCH_PROMPT = 32, 128
SHARED, SHARED_GENERATE = 2048, 32


class Peers:
    def __init__(self, args):
        self.args = args
        self.prefix = shlex.split(os.environ.get('PREFIX', ''))
        self.threads = str(args.threads)
        level = {} if args.level == 'native' else {'QUIRE_CPU': args.level}
        self.quire_env = {**os.environ, **level}
        self.llama_env = {**os.environ, 'LD_LIBRARY_PATH': f'{args.llama}/bin'}
        self.rows = []
        self.failed = False

    def run(self, command, env):
        """The output of a command; nothing, and its last words, where it fails."""
        try:
            done = subprocess.run([*self.prefix, *command], env=env, capture_output=True,
                                  text=True, check=False)
        except OSError as error:
            sys.exit(f'peers: cannot start {error.filename}: {error.strerror}')
        if done.returncode == 0:
            return done.stdout
        last = (done.stderr.strip() or 'no message').splitlines()[-1]
        print(f'peers: {os.path.basename(command[0])} ended with {done.returncode}: {last}',
              file=sys.stderr)
        self.failed = True
        return None

    def quire_level(self):
        out = self.run([self.args.quire, 'info', '--cpu', '--json'], self.quire_env)
        return json.loads(out)['level'] if out else '?'

    def quire(self, *arguments):
        out = self.run([self.args.quire, 'bench', *arguments, '--threads', self.threads, '--json'],
                       self.quire_env)
        return json.loads(out) if out else None

    def llama_bench(self, depth, flash):
        out = self.run([f'{self.args.llama}/bin/llama-bench', '-m', self.args.model, '-t',
                        self.threads, '-p', str(PROMPT), '-n', str(GENERATE), '-d', str(depth),
                        '-r', str(self.args.runs), '-fa', str(flash), '-ngl', '0', '-o', 'json'],
                       self.llama_env)
        figures = {}
        for test in json.loads(out) if out else []:
            name = 'generate' if test['n_gen'] else 'prompt'
            figures[name] = statistics.median(test['samples_ts'])
        return figures

    def add(self, work, unit, ours, flash, plain):
        better = [value for value in (flash, plain) if value]
        best = (min(better) if unit in SMALLER else max(better)) if better else None
        ratio = None
        if ours and best:
            ratio = best / ours if unit in SMALLER else ours / best
        self.rows.append({'work': work, 'unit': unit, 'quire': ours, 'llama_flash': flash,
                          'llama_plain': plain, 'ratio': ratio})
        if not self.args.json:
            cells = [f'{value:12.2f}' if value else f'{"-":>12}'
                     for value in (ours, flash, plain, ratio)]
            print(f'{work:38} {unit:>6} ' + ' '.join(cells), flush=True)

    def quire_model(self, *arguments):
        """The one row of quire bench model; without figures where it fails."""
        got = self.quire('model', '-m', self.args.model, '--runs', str(max(3, self.args.runs)),
                         *arguments)
        return got['rows'][0] if got else {}

    def models(self):
        """Quire's q8, too, stands beside llama.cpp's f16: its q8 takes minutes to get this deep."""
        for depth in DEPTHS:
            flash, plain = self.llama_bench(depth, 1), self.llama_bench(depth, 0)
            for kv, note in (('f16', 'f16'), ('q8', 'q8 beside f16')):
                row = self.quire_model('--kv', kv, '--depth', str(depth), '--prompt', str(PROMPT),
                                       '--generate', str(GENERATE))
                for work, count, key in (('prompt', PROMPT, 'prompt_tok_s'),
                                         ('generate', GENERATE, 'gen_tok_s')):
                    self.add(f'{work} {count} at {depth}, {note}', 'tok/s', row.get(key),
                             flash.get(work), plain.get(work))

    def llama_batch(self, flash, prompt, generate, shared):
        positions = (prompt if shared else BATCH * prompt) + BATCH * generate
        out = self.run([f'{self.args.llama}/bin/llama-batched-bench', '-m', self.args.model, '-t',
                        self.threads, '-tb', self.threads, '-c', str(positions), '-npp',
                        str(prompt), '-ntg', str(generate), '-npl', str(BATCH), '-fa', flash,
                        '-ngl', '0', '--output-format', 'jsonl',
                        *(('-pps', '-kvu') if shared else ())], self.llama_env)
        lines = re.findall(r'^\{.*\}$', out or '', re.M)
        return json.loads(lines[-1])['speed_tg'] if lines else None

    def our_batch(self, prompt, generate, *options):
        return self.quire_model('--batch', str(BATCH), '--depth', str(prompt), '--prompt', '1',
                                '--generate', str(generate), *options)

    def batches(self, work, prompt, generate, shared=False):
        """One row of BATCH sequences together, after a prompt each or a shared one; its cells."""
        ours = self.our_batch(prompt, generate, *(('--shared',) if shared else ()))
        cells = (ours.get('gen_tok_s'), self.llama_batch('on', prompt, generate, shared),
                 self.llama_batch('off', prompt, generate, shared))
        self.add(f'generate, {BATCH} sequences {work}', 'tok/s', *cells)
        return cells

    def batch(self):
        self.batches(f'of {BATCH_PROMPT}', BATCH_PROMPT, GENERATE)

    def shared(self):
        """What a shared prompt adds to a step: the time with it over the time without."""
        alone = self.batches('of 1', 1, SHARED_GENERATE)
        over = self.batches(f'sharing {SHARED}', SHARED, SHARED_GENERATE, shared=True)
        times = [a / o if a and o else None for a, o in zip(alone, over)]
        self.add(f'their step, to one without the {SHARED}', 'x', *times)
        off = self.our_batch(SHARED, SHARED_GENERATE, '--shared', '--no-cascade').get('gen_tok_s')
        self.add('their step, to the same with the cascade off', 'x',
                 off / over[0] if off and over[0] else None, None, None)

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


PARTS = ('models', 'batch', 'shared', 'attention')


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
    parser.add_argument('--only', choices=PARTS)
    parser.add_argument('--json', action='store_true')
    parser.add_argument('model')
    args = parser.parse_args()
    with open(f'{args.llama}/version', encoding='utf-8') as file:
        version = file.read().strip()
    peers = Peers(args)
    level = f'{args.level} (Quire: {peers.quire_level()})'
    if not args.json:
        print(f'{processor()}, {level}, {args.threads} threads; llama.cpp {version}')
        print(f'{"":38} {"":>6} ' + ' '.join(f'{name:>12}' for name in (
            'quire', 'llama flash', 'llama plain', 'ratio')))
    for part in PARTS:
        if args.only in (None, part):
            getattr(peers, part)()
    if args.json:
        json.dump({'bench': 'peers', 'processor': processor(), 'level': level,
                   'threads': args.threads, 'llama': version, 'rows': peers.rows}, sys.stdout,
                  indent=1)
        print()
    sys.exit(peers.failed)


if __name__ == '__main__':
    main()
