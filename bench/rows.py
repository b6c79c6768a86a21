#!/usr/bin/env python3
# rows.py - prints what quire bench and bench/llama.sh gave with --json as rows of Markdown.
# SPDX-License-Identifier: Apache-2.0
"""Usage: bench/rows.py FILE.json...   the tables of docs/performance.md, from any number of runs"""
import json
import sys
from pathlib import Path

KERNEL_HEAD = ('| row | ms | roof ms | roof / time | target | bound by |',
               '|---|---:|---:|---:|---:|---|')
ROOF_HEAD = ('| level | threads | read GB/s | f32 GMAC/s | bf16 GMAC/s | codes GMAC/s |',
             '|---|---:|---:|---:|---:|---:|')
PEER_HEAD = ('| work | unit | Quire | llama.cpp, flash | llama.cpp, plain | ratio |',
             '|---|---|---:|---:|---:|---:|')


def kernel_row(row):
    target = f"{row['target']:.2f}" if row['target'] else ''
    bound = 'memory' if row['by_memory'] else 'products'
    return (f"| `{row['name']}` | {row['ms']:.3f} | {row['roof_ms']:.3f} | {row['ratio']:.2f} | "
            f'{target} | {bound} |')


def roof_row(row):
    return (f"| {row['level']} | {row['threads']} | {row['read_gb_s']:.1f} | "
            f"{row['f32_gmac_s']:.0f} | {row['bf16_gmac_s']:.0f} | {row['codes_gmac_s']:.0f} |")


def peer_row(row):
    cells = (f'{row[key]:.2f}' if row[key] else '-'
             for key in ('quire', 'llama_flash', 'llama_plain', 'ratio'))
    return f"| {row['work']} | {row['unit']} | " + ' | '.join(cells) + ' |'


TABLES = {'roof': (ROOF_HEAD, roof_row), 'attn': (KERNEL_HEAD, kernel_row),
          'linear': (KERNEL_HEAD, kernel_row), 'peers': (PEER_HEAD, peer_row)}


def head(run):
    """One line on what the figures were measured on."""
    text = f"{run['processor']}, level {run['level']}, {run['threads']} threads"
    if 'ring_bytes' in run:
        text += f"; {run['ring_bytes'] >> 20} MiB a round"
        text += ', less than four last caches' if run['capped'] else ''
    return text + (f"; llama.cpp {run['llama']}" if 'llama' in run else '')


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    try:
        runs = [json.loads(Path(name).read_text(encoding='utf-8')) for name in sys.argv[1:]]
    except (OSError, ValueError) as error:
        sys.exit(f'rows: {error}')
    for bench, (lines, row_of) in TABLES.items():
        mine = [run for run in runs if run.get('bench') == bench]
        for title in dict.fromkeys(head(run) for run in mine):
            print(f'\n{bench}: {title}\n', *lines, sep='\n')
            for run in mine:
                for row in run['rows'] if head(run) == title else ():
                    print(row_of(row))


if __name__ == '__main__':
    main()
