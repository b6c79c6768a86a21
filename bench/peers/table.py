#!/usr/bin/env python3
# table.py - prints what the programs of bench/peers measured as one table.
# SPDX-License-Identifier: Apache-2.0
"""Prints what the programs of bench/peers measured as one table, or with --json as one object."""
import argparse
import json
import statistics
import sys
from pathlib import Path

WORKS = (  # name, unit, what it is; README.md tells exactly
    ('take', 'ns/block', 'allocate: 64 prompts of 2,048 tokens, not findable'),
    ('publish', 'ns/block', 'allocate: the same, findable'),
    ('free_plain', 'ns/block', 'free: the 64 prompts, not findable'),
    ('hit', 'ns/block', 'hit: 100,000 cached tokens, found and held'),
    ('free', 'ns/block', 'free: those 100,000 tokens, which stay cached'),
    ('request', 'ns', 'lookup, allocate and free: a request of one block'),
    ('fork', 'us', 'fork of a live sequence of 100,000 tokens'),
    ('unfork', 'us', 'end of that fork'),
    ('rollback', 'us', 'cut the last 64 of 100,000 tokens'),
    ('step64', 'us', 'decode step of 64 sequences of 2,048 tokens'),
)
VARIANTS = {'': '', '_hash': ' with hashing'}


def machine():
    names = [line.split(':', 1)[1].strip() for line in open('/proc/cpuinfo', encoding='utf-8')
             if line.startswith('model name')]
    return f'{names[0] if names else "unknown processor"}, {len(names)} cores'


def median_of_rounds(results):
    """One result of each peer: the median over its rounds, figure by figure."""
    peers = {}
    for result in results:
        peers.setdefault(result['peer'], []).append(result)
    for rounds in peers.values():
        yield rounds[0] | {'rows': {name: statistics.median(r['rows'][name] for r in rounds)
                                    for name in rounds[0]['rows']}}


def rows(found):
    """One row for each work and peer that did it."""
    quire = next((result['rows'] for result in found if result['peer'] == 'quire'), None)
    if quire is None:
        sys.exit('table.py: no results of Quire')
    for name, unit, text in WORKS:
        for result in found:
            for suffix, variant in VARIANTS.items():
                value = result['rows'].get(name + suffix)
                if result['peer'] != 'quire' and value is not None:
                    yield {'work': name, 'text': text, 'unit': unit, 'quire': quire[name],
                           'peer': result['peer'] + variant, 'peer_value': value,
                           'ratio': value / quire[name]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', action='store_true')
    parser.add_argument('results', nargs='+', type=Path)
    args = parser.parse_args()
    found = list(median_of_rounds(json.loads(path.read_text(encoding='utf-8'))
                                  for path in args.results))
    table = list(rows(found))
    if args.json:
        json.dump({'machine': machine(), 'programs': [
            {key: value for key, value in result.items() if key != 'rows'} for result in found],
            'rows': table}, sys.stdout, indent=1)
        print()
        return
    print(machine() + '; ' + ', '.join(f"{r['peer']} {r['version']}" for r in found))
    print(f"{'work':52} {'unit':8} {'quire':>10}  {'peer':18} {'peer':>10} {'ratio':>8}")
    for row in table:
        print(f"{row['text']:52} {row['unit']:8} {row['quire']:10.1f}  {row['peer']:18} "
              f"{row['peer_value']:10.1f} {row['ratio']:8.1f}")


if __name__ == '__main__':
    main()
