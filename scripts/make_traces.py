#!/usr/bin/env python3
# make_traces.py - writes the traces of examples/traces.
# SPDX-License-Identifier: Apache-2.0
"""Usage: make_traces.py [FOLDER]

Writes chats.trace, agents.trace and documents.trace, in the format of docs/formats/trace.md. The
same script gives the same bytes on every machine; a test compares them with those of the
repository. A person's pause, a tool's delay and every length is drawn from small made-up ranges."""
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / 'examples' / 'traces'
# How fast an answer is taken to be, so that nobody replies before it is there.
TOKEN_S, PROMPT_TOKEN_S = 0.025, 0.00005


class Random:
    """splitmix64, as in the format: the generators of Python may change."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9e3779b97f4a7c15) & mask
        x = self.state
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & mask
        x = (x ^ x >> 27) * 0x94d049bb133111eb & mask
        return (x ^ x >> 31) % limit

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def often(self, percent):
        return self.below(100) < percent


class Trace:
    def __init__(self, about, vocab=32000):
        self.head = ['quire-trace 1', *(f'# {line}' for line in about), f'vocab {vocab}']
        self.requests = []
        self.streams = 0

    def stream(self, count):
        """New text of so many tokens."""
        self.streams += 1
        return f'~{self.streams}:{count}'

    def segment(self, name, count):
        self.head.append(f'segment {name} {self.stream(count)}')
        return name

    def request(self, at_ms, tokens, gen, prompt, name='', **more):
        """Adds a request; gives when its answer is there, in milliseconds."""
        words = [f'request at={at_ms / 1000:.3f}', f'in={",".join(tokens)}', f'gen={gen}']
        words += [f'id={name}'] if name else []
        words += [f'{key}={value}' for key, value in more.items()]
        self.requests.append((at_ms, len(self.requests), ' '.join(words)))
        return at_ms + round(1000 * (gen * TOKEN_S + prompt * PROMPT_TOKEN_S))

    def write(self, path):
        lines = self.head + [line for _, _, line in sorted(self.requests)]
        path.write_text('\n'.join(lines) + '\n', encoding='ascii')


def chats():
    random = Random(1)
    trace = Trace(['36 people, one system prompt, 2 to 12 turns each. Six of them belong to',
                   'another tenant, whose salt keeps their tokens apart.'])
    system = trace.segment('system', 1100)
    for person in range(36):
        at, before, length = random.between(0, 240000), system, 1100
        more = {'salt': 7} if person >= 30 else {}
        for turn in range(random.between(2, 12)):
            said = random.between(200, 900) if random.often(8) else random.between(8, 120)
            gen = random.between(30, 320)
            name = f'p{person}.{turn}'
            at = trace.request(at, [before, trace.stream(said)], gen, length + said, name, **more)
            at += 1000 * (random.between(60, 240) if random.often(10) else random.between(4, 40))
            before, length = f'@{name}', length + said + gen
    return trace


def agents():
    random = Random(2)
    trace = Trace(['14 tasks of two agents. Each agent has the long description of its tools in',
                   'front. A task calls a tool, reads what came back, sometimes tries several',
                   'branches from one point at once, goes back, or cuts its own history short.'])
    tools = [trace.segment('coder', 3400), trace.segment('clerk', 2200)]
    sizes = {'coder': 3400, 'clerk': 2200}
    for task in range(14):
        agent = tools[task % 3 == 2]
        goal = random.between(60, 500)
        at, length = random.between(0, 120000), sizes[agent] + goal
        at_point = [(f'{agent},{trace.stream(goal)}', length)]
        for step in range(random.between(6, 22)):
            before, length = at_point[-1]
            kind = random.below(100)
            branches = random.between(2, 4) if kind < 12 else 1
            if 12 <= kind < 20 and len(at_point) > 3:
                at_point = at_point[:-random.between(1, 2)]
                before, length = at_point[-1]
            elif 20 <= kind < 24 and step > 5:
                length = sizes[agent] + goal
                before = f'{at_point[-1][0]}:{length}'
            for branch in range(branches):
                result, gen = random.between(30, 700), random.between(15, 130)
                name = f't{task}.{step}.{branch}'
                done = trace.request(at + 20 * branch, [before, trace.stream(result)], gen,
                                     length + result, name)
            at = done + random.between(100, 6000)
            at_point.append((f'@{name}', length + result + gen))
    return trace


def documents():
    random = Random(3)
    trace = Trace(['Questions on eight documents, some asked far more often than others, between',
                   'documents that are read once: a scan, which should push nothing out.'])
    lengths = [random.between(1500, 11000) for _ in range(8)]
    names = [trace.segment(f'doc{i}', length) for i, length in enumerate(lengths)]
    ask = trace.segment('ask', 40)
    at = 0
    for number in range(240):
        at += random.between(200, 4000)
        gen = random.between(20, 160)
        if random.often(35):
            count = random.between(1200, 8000)
            trace.request(at, [trace.stream(count), ask], gen, count + 40)
            continue
        which = min(random.below(8), random.below(8))
        said = random.between(10, 60)
        name = f'q{number}'
        done = trace.request(at, [names[which], ask, trace.stream(said)], gen,
                             lengths[which] + 40 + said, name)
        if random.often(25):
            trace.request(done + random.between(3000, 20000), [f'@{name}', trace.stream(30)], 60,
                          lengths[which] + 130 + said)
    return trace


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for make in (chats, agents, documents):
        make().write(folder / f'{make.__name__}.trace')


if __name__ == '__main__':
    main()
