# test_branch.py - branches of a chat, and several answers to one prompt.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import os
import pty
import random
import re
import subprocess
import unittest

from cli import CLI, Case, TIMEOUT_S, tiny
from terminal import CTRL_C, CTRL_D, Terminal

MODEL = tiny('chat')
SLOW = tiny('slow', '--layers', '16')
# Most layers see 8 positions, and each of the 7 layers has blocks of its own.
WINDOWS = tiny('gemma3', '--arch', 'gemma3', '--layers', '7', '--vocab', '512')
POSITION_BYTES = 512  # 2 layers, 2 heads of 32, K and V in two bytes
TOKENS = 8
SAYS = ('Who?', 'Where is it?', 'Tell me more about the sheets.', 'Why?', 'And the shop?')


class ChatCase(Case):
    def start(self, *arguments, model=MODEL, env=None):
        env = {'NO_COLOR': '1', **(env or {})}
        chat = Terminal(self, 'run', '-m', model, '--temp', '0', *arguments, env=env)
        chat.greeting = chat.until_prompt()
        return chat

    def finish(self, chat):
        """Ends a chat; gives what it printed at its end."""
        chat.press(CTRL_D)
        rest, status = chat.wait()
        self.assertEqual(status, 0, rest)
        return rest

    def wrong(self, chat, line, says=''):
        """A line that is refused with one line, after which the chat goes on."""
        text = chat.say(line)
        self.assertRegex(text, r'\Aquire: [^\n]+\n\Z', line)
        self.assertIn(says, text)

    def figures(self, chat):
        text = chat.say('/stats')
        names = {'computed': r'(\d+) tokens computed', 'reused': r'computed, (\d+) reused',
                 'held': r'(\d+) held', 'cached': r'(\d+) cached', 'free': r'(\d+) free',
                 'total': r'blocks +(\d+):', 'saved': r'saved +(\d+) blocks',
                 'saved_bytes': r'saved +\d+ blocks, (\d+) bytes'}
        return {name: int(re.search(pattern, text)[1]) for name, pattern in names.items()}

    def check_map(self, text):
        """Reads the drawing, and checks it against its own legend. Gives the legend's counts."""
        self.assertNotIn('\033', text)
        self.assertNotIn('events were lost', text)
        lines = text.split('\n')
        self.assertLessEqual(max(map(len, lines)), 80)
        total = int(re.match(r'(\d+) blocks of (\d+) positions', lines[0])[1])
        cells, last = {}, ''
        seen = 0
        for line in lines[1:]:
            row = re.fullmatch(r' *(\d+)  ([a-zA-Z.+* ]+)', line)
            more = re.fullmatch(r' +and (\d+) lines like it, to block (\d+)', line)
            if more:
                self.assertGreater(int(more[1]), 1)
                for cell in last:
                    cells[cell] = cells.get(cell, 0) + int(more[1])
                seen += int(more[1]) * len(last)
                self.assertEqual(int(more[2]), seen - 1)
            elif row:
                self.assertEqual(int(row[1]), seen)
                last = row[2].replace(' ', '')
                seen += len(last)
                for cell in last:
                    cells[cell] = cells.get(cell, 0) + 1
            else:
                break
        self.assertEqual(seen, total)
        names = ('own', 'shared', 'pinned', 'cached', 'free')
        match = re.search(', '.join(rf'(\d+) {name}' for name in names), text)
        counts = dict(zip(names, map(int, match.groups())))
        self.assertEqual(sum(n for c, n in cells.items() if c.islower()), counts['own'])
        self.assertEqual(sum(n for c, n in cells.items() if c.isupper()), counts['shared'])
        for cell, name in (('*', 'pinned'), ('+', 'cached'), ('.', 'free')):
            self.assertEqual(cells.get(cell, 0), counts[name])
        return counts, cells


class Mirror:
    """What each branch must hold, computed by runs that share nothing."""
    model, ends = MODEL, (0, 2)  # <|endoftext|>, <|im_end|>
    first = '<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n'
    later = '<|im_end|>\n' + first

    def __init__(self, case, *arguments):
        self.case, self.arguments = case, arguments
        self.branches, self.current = [[]], 0

    def tokens(self, text):
        return json.loads(self.case.quire('tokenize', '-m', self.model, '-p', text)[0])

    def say(self, text):
        """The answer that the current branch must give."""
        turns = self.branches[self.current]
        ids = self.tokens((self.later if turns else self.first).format(text))
        ids = (turns[-1] if turns else []) + ids
        path = self.case.write('whole.json', json.dumps(ids))
        got = json.loads(self.case.quire('run', '-m', self.model, '--ids', path, '-n', str(TOKENS),
                                         '--temp', '0', '--json', *self.arguments)[0])
        turns.append(ids + [i for i in got['output_ids'] if i not in self.ends])
        return got['text']


class WindowMirror(Mirror):
    model, ends = WINDOWS, (1, 5)  # <eos>, <end_of_turn>
    first = '<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n'
    later = '<end_of_turn>\n' + first.removeprefix('<bos>')


class Branches(ChatCase):
    def test_second_question(self):
        """The first question is not computed again for the second."""
        chat = self.start('-n', '6')
        chat.say('Who has the sheets that the printer lends to the binder every evening?')
        first = self.figures(chat)
        self.assertEqual(first['reused'], 0)
        chat.say('Why?')
        second = self.figures(chat)
        self.assertGreaterEqual(second['reused'], first['computed'])
        self.assertLess(second['computed'] - first['computed'], 40)
        rest = self.finish(chat)
        self.assertNotIn('reused', rest)

    def test_stats_at_the_end(self):
        chat = self.start('-n', '6', '--stats')
        chat.say('Who?')
        chat.say('Why?')
        figures = self.figures(chat)
        rest = self.finish(chat)
        self.assertEqual(int(re.search(r'reused (\d+)', rest)[1]), figures['reused'])
        self.assertEqual(int(re.search(r'prompt +(\d+) tokens', rest)[1]), figures['computed'])

    def random_walk(self, seed, arguments, steps, sampling=(), mirror=Mirror):
        rng = random.Random(seed)
        chat = self.start('-n', str(TOKENS), *arguments, *sampling, model=mirror.model)
        mirror = mirror(self, *sampling)
        for step in range(steps):
            turns = mirror.branches[mirror.current]
            choice = rng.choice(('say', 'say', 'fork', 'switch', 'back'))
            where = (seed, step, choice, mirror.current, len(turns))
            if choice == 'say':
                text = rng.choice(SAYS)
                got = [line for line in chat.say(text).split('\n') if 'K/V memory' not in line]
                self.assertEqual('\n'.join(got).rstrip('\n'), mirror.say(text).rstrip('\n'), where)
            elif choice == 'fork' and len(mirror.branches) < 6:
                self.assertIn('begins here', chat.say('/fork'), where)
                mirror.branches.append(list(turns))
                mirror.current = len(mirror.branches) - 1
            elif choice == 'switch':
                mirror.current = rng.randrange(len(mirror.branches))
                self.assertIn('in branch', chat.say(f'/switch {mirror.current + 1}'), where)
            elif choice == 'back' and turns:
                count = rng.randint(1, min(3, len(turns)))
                self.assertIn('took back', chat.say(f'/back {count}'), where)
                del turns[-count:]
        return chat

    def test_random_walks(self):
        """Whatever is forked, left, taken back and said again: each answer is that of the whole
        text computed at once."""
        for seed, arguments in enumerate((['--block-size', '16'], ['--block-size', '1'],
                                          ['--block-size', '7', '--threads', '1'],
                                          ['--block-size', '64', '--threads', '3'])):
            self.finish(self.random_walk(seed, arguments, 22))

    def test_random_walks_with_windows(self):
        """Going back past what a window keeps finds it in the cache, or computes it again."""
        for seed, arguments in enumerate(([], ['--block-size', '5'], ['--layout', 'contiguous'])):
            self.finish(self.random_walk(seed, arguments, 22, mirror=WindowMirror))
        little = ['-c', '700', '--kv-memory', str(704 * 7 * 256)]
        for seed in range(20, 23):
            chat = self.random_walk(seed, little, 30, mirror=WindowMirror)
            counts, _ = self.check_map(chat.say('/blocks'))
            figures = self.figures(chat)
            self.assertEqual(counts['own'] + counts['shared'], figures['held'])
            self.assertEqual((counts['cached'], counts['free']),
                             (figures['cached'], figures['free']))
            self.finish(chat)

    def test_back_past_a_lost_window(self):
        """Where the rows that a window needs are gone, as much as works stays."""
        chat = self.start('-n', str(TOKENS), '-c', '500', '--kv-memory', str(512 * 7 * 256),
                          model=WINDOWS)
        mirror = WindowMirror(self)
        for text in SAYS:
            self.assertEqual(chat.say(text).rstrip('\n'), mirror.say(text).rstrip('\n'))
        chat.say('/fork')
        chat.say('/back 5')
        for number in range(2):
            chat.say(f'Tell me of the sheets in shop {number} and of all its pages. ' * 9)
        chat.say('/switch 1')
        told = chat.say('/back 3')
        computed, whole = map(int, re.search(r'(\d+) of (\d+) tokens computed', told).groups())
        self.assertLess(computed, whole)
        del mirror.branches[0][-3:]
        for text in SAYS[2:]:
            self.assertEqual(chat.say(text).rstrip('\n'), mirror.say(text).rstrip('\n'))
        self.finish(chat)

    def test_random_walk_with_a_penalty(self):
        """What a penalty looks at is the branch's own text, reused or not."""
        self.finish(self.random_walk(5, [], 22, ['--repeat-penalty', '1.7']))

    def test_random_walks_contiguous(self):
        self.finish(self.random_walk(7, ['--layout', 'contiguous'], 22))

    def test_random_walks_in_little_memory(self):
        """Branches are let go of when the memory is full, and computed again."""
        for seed in (10, 11):
            chat = self.random_walk(seed, ['-c', '700', '--kv-memory', str(704 * POSITION_BYTES)],
                                    30)
            figures = self.figures(chat)
            self.assertEqual(figures['total'], 44)
            counts, _ = self.check_map(chat.say('/blocks'))
            self.assertEqual(counts['own'] + counts['shared'], figures['held'])
            self.assertEqual((counts['cached'], counts['free']),
                             (figures['cached'], figures['free']))
            self.finish(chat)

    def test_memory_full(self):
        """Two branches that fill one context each in a pool for one: the older is let go of, a line
        says what to do, and its text is still there."""
        chat = self.start('-n', '4', '-c', '256', '--kv-memory', str(256 * POSITION_BYTES))
        long = 'Tell me of the sheets and the quires and the pages. ' * 8
        chat.say('Who?')
        first = chat.say(long)
        chat.say('/fork')
        chat.say('/back')
        self.assertRegex(chat.say(long.replace('pages', 'books')),
                         r'quire: the K/V memory is full: branch 1 keeps its text .*--kv-memory')
        self.assertIn('branch 1: 2 turns, 0 tokens, 0 blocks', chat.say('/stats'))
        self.assertIn('branch 1, after 2 turns', chat.say('/switch 1'))
        chat.say('/back')
        self.assertRegex(chat.say(long), r'quire: the K/V memory is full: branch 2 [^\n]*\n'
                         + re.escape(first))
        self.finish(chat)

    def test_oldest_is_let_go(self):
        chat = self.start('-n', '4', '-c', '256', '--kv-memory', str(320 * POSITION_BYTES))
        text = 'Tell me of the sheets and the quires and the pages. ' * 3
        for line in (text, '/fork', '/back', text.replace('pages', 'books'), '/fork', '/back',
                     text.replace('pages', 'shops'), '/switch 1', 'Why?', '/switch 2'):
            self.assertNotIn('memory is full', chat.say(line))
        told = chat.say(text.replace('pages', 'binders') * 2)
        self.assertIn('memory is full: branch 3', told)
        self.assertNotIn('memory is full: branch 2', told)
        self.finish(chat)

    def test_alone_in_exact_memory(self):
        """Going on inside a block that can be found again copies it; where no block is left for
        that, its rows are computed again."""
        mirror, text = Mirror(self), 'Who?'
        while len(mirror.tokens(text)) < 178:  # and 18 more around it
            text += ' Who?'
        chat = self.start('-n', str(TOKENS), '-c', '256', '--block-size', '64', '--kv-memory',
                          str(256 * POSITION_BYTES))
        self.assertEqual(chat.say(text).rstrip('\n'), mirror.say(text).rstrip('\n'))
        chat.say('Why?')
        chat.say('/back')
        before = self.figures(chat)
        self.assertEqual((before['held'], before['free']), (4, 0))
        self.assertEqual(chat.say('Where?').rstrip('\n'), mirror.say('Where?').rstrip('\n'))
        self.assertLess(self.figures(chat)['computed'] - before['computed'], 64)
        self.finish(chat)

    def test_shared_blocks(self):
        """A fork costs no block; only what is written after it does."""
        chat = self.start('-n', '4')
        chat.say('Tell me of the sheets and the quires and the pages of the shop. ' * 4)
        before = self.figures(chat)
        self.assertEqual(before['saved'], 0)
        for name in ('one', 'two', 'three'):
            self.assertIn(f'"{name}" begins here, after 1 turn;', chat.say(f'/fork {name}'))
        after = self.figures(chat)
        self.assertEqual(after['held'], before['held'])
        self.assertEqual(after['saved'], 3 * before['held'])
        self.assertEqual(after['saved_bytes'], after['saved'] * 16 * POSITION_BYTES)
        chat.say('Why?')
        written = self.figures(chat)
        self.assertGreater(written['held'], before['held'])
        self.assertLess(written['held'], before['held'] + 5)
        self.assertLess(written['computed'] - before['computed'], 40)
        self.finish(chat)

    def test_back(self):
        """What was taken back and said again is found, not computed, to the token."""
        chat = self.start('-n', '6', '--block-size', '64')
        chat.say('Who?')
        text = 'Tell me of the sheets and the quires and the pages of the shop. ' * 5
        answer = chat.say(text)
        before = self.figures(chat)
        self.assertRegex(chat.say('/back'), r'\Atook back 1 turn; left: 1 turn, (\d+) of \1 tokens')
        self.assertEqual(chat.say(text), answer)
        after = self.figures(chat)
        self.assertEqual(after['computed'] - before['computed'], 1)
        self.assertIn('left: 0 turns', chat.say('/back 2'))
        self.wrong(chat, '/back', says='no turn')
        self.assertEqual(self.figures(chat)['held'], 0)
        self.finish(chat)

    def test_switch_back_costs_nothing(self):
        chat = self.start('-n', '6')
        chat.say('Tell me of the sheets and the quires and the pages of the shop. ' * 4)
        chat.say('/fork other')
        chat.say('Why?')
        before = self.figures(chat)
        self.assertIn('in branch 1, after 1 turn', chat.say('/switch 1'))
        chat.say('Where?')
        self.assertIn('in branch 2 "other", after 2 turns', chat.say('/switch other'))
        chat.say('Where?')
        self.assertLess(self.figures(chat)['computed'] - before['computed'], 60)
        self.finish(chat)

    def test_interrupted_branch(self):
        """Ctrl-C in a branch: what was said so far stays, and the other branch is untouched."""
        chat = self.start('--stats', model=SLOW)
        chat.say('/fork')
        os.write(chat.fd, b'Tell me all.\n')
        while len(chat.output) < 60:
            self.assertTrue(chat.read())
        chat.press(CTRL_C)
        chat.until_prompt()
        stats = chat.say('/stats')
        self.assertRegex(stats, r'b> branch 2: 1 turn, [1-9]\d* tokens')
        self.assertRegex(stats, r'a  branch 1: 0 turns, 0 tokens, 0 blocks')
        self.assertIn('took back 1 turn', chat.say('/back'))
        self.finish(chat)

    def test_overflow_in_a_branch(self):
        """Old turns are dropped in one branch and stay in the other."""
        chat = self.start('-c', '120', '-n', str(TOKENS))
        chat.say('Who has the sheets?')
        chat.say('/fork')
        told = ''.join(chat.say(f'Question number {i}: who has them?') for i in range(5))
        self.assertGreater(told.count('dropped the oldest'), 1)
        # A branch of this one has dropped the same turns already.
        chat.say('/fork')
        for again in re.findall(r'dropped the oldest (\d+)', chat.say('Question number 5: who?')):
            self.assertEqual(again, '1')
        chat.say('/switch 2')
        self.assertIn('left: 0 turns', chat.say('/back 6'))
        self.assertEqual(chat.say('Where?').rstrip('\n'), Mirror(self).say('Where?').rstrip('\n'))
        chat.say('/switch 1')
        self.assertNotIn('dropped', chat.say('Why?'))
        self.finish(chat)

    def test_slashes(self):
        """Two slashes say a text that begins with one."""
        chat = self.start('-n', '8')
        mirror = Mirror(self)
        self.assertEqual(chat.say('//fork it').rstrip('\n'), mirror.say('/fork it').rstrip('\n'))
        self.assertEqual(chat.say('///').rstrip('\n'), mirror.say('//').rstrip('\n'))
        self.assertEqual(chat.say('// x').rstrip('\n'), mirror.say('/ x').rstrip('\n'))
        self.assertEqual(chat.say(' a /help').rstrip('\n'), mirror.say(' a /help').rstrip('\n'))
        self.finish(chat)

    def test_help(self):
        chat = self.start()
        self.assertIn('/help', chat.greeting)
        text = chat.say('/help')
        for command in ('/fork', '/switch', '/back', '/stats', '/blocks', '/help', '/quit',
                        'Ctrl-D', '//'):
            self.assertIn(command, text)
        self.assertLessEqual(max(map(len, text.split('\n'))), 80)
        self.assertEqual(chat.say('/help  '), text)
        self.assertEqual(chat.say(' \t /help'), text)
        self.finish(chat)

    def test_quit(self):
        chat = self.start('-n', '4', '--stats')
        chat.say('Who?')
        os.write(chat.fd, b' /quit\n')
        rest, status = chat.wait()
        self.assertEqual(status, 0, rest)
        self.assertIn('answer', rest)
        self.assertNotIn('quire:', rest)

    def test_bad_commands(self):
        chat = self.start('-n', '4')
        for line in ('/', '/ fork', '/nope', '/forks', '/FORK', '/usr/bin/env is what?',
                     '/' + 'x' * 300):
            self.wrong(chat, line, says='/help')
        for line in ('/help me', '/stats all', '/blocks 3'):
            self.wrong(chat, line, says='no argument')
        for line in ('/switch', '/switch 0', '/switch 2', '/switch -1', '/switch nobody',
                     '/switch b', '/switch A', '/switch aa',
                     '/switch 99999999999999999999999', '/switch 1 2', '/switch ' + 'x' * 500):
            self.wrong(chat, line, says='branch')
        for line in ('/back', '/back 1', '/back 0', '/back x'):
            self.wrong(chat, line, says='/back')
        chat.say('Who?')
        for line in ('/back 0', '/back 2', '/back -1', '/back 1.5', '/back one', '/back 1 1',
                     '/back 18446744073709551617'):
            self.wrong(chat, line, says='from 1 to 1')
        for line in ('/fork 2', '/fork ' + 'x' * 21, '/fork ' + '日' * 7, '/fork b',
                     '/fork a\tb'):
            self.wrong(chat, line, says='/fork')
        os.write(chat.fd, b'/fork \xff\n')
        self.assertIn('not UTF-8', chat.until_prompt())
        self.assertIn('begins here', chat.say('/fork tall tale'))
        self.wrong(chat, '/fork tall tale', says='already')
        self.assertIn('in branch 2 "tall tale"', chat.say('/switch tall tale'))
        self.assertNotIn('quire:', chat.say('Why?'))
        for i in range(24):
            self.assertIn('begins here', chat.say('/fork'))
        self.wrong(chat, '/fork', says='26')
        self.assertNotIn('quire:', chat.say('Why?'))
        self.assertIn('z> branch 26', chat.say('/stats'))
        for letter, number in (('a', 1), ('y', 25), ('z', 26)):
            self.assertIn(f'in branch {number},', chat.say(f'/switch {letter}'))
        self.finish(chat)

    def test_contiguous(self):
        """Nothing can be shared: a fork copies, which a line says, and there is nothing to draw."""
        for arguments, env in ((['--layout', 'contiguous'], {}), ([], {'QUIRE_PAGED_KV': '0'})):
            chat = self.start('-n', '6', *arguments, env=env)
            chat.say('Who?')
            text = chat.say('/fork')
            self.assertRegex(text, r'quire: the contiguous layout shares nothing: \d+ positions')
            self.assertIn('branch 2 begins here', text)
            self.wrong(chat, '/blocks', says='contiguous')
            chat.say('Why?')
            figures = self.figures(chat)
            self.assertEqual(figures['saved'], 0)
            self.assertLess(figures['computed'], 60)
            self.finish(chat)


class Blocks(ChatCase):
    def test_map(self):
        """The drawing agrees with the pool's own count, through forks and cuts."""
        chat = self.start('-n', '6', '-c', '700', '--system', 'The shop has few sheets. ' * 8)
        counts, _ = self.check_map(chat.say('/blocks'))
        self.assertEqual(counts['free'], 88)
        long = 'Tell me of the sheets and the quires and the pages. ' * 4
        for line in ('Who?', long, '/fork twenty letters long', long, 'Why?', '/back 2', 'Where?',
                     '/switch 1', 'Why?', '/fork', '/back 3', 'Who?', '/switch 2', long, '/back',
                     long, '/back 1'):
            chat.say(line)
            counts, cells = self.check_map(chat.say('/blocks'))
            figures = self.figures(chat)
            self.assertEqual(counts['own'] + counts['shared'] + counts['pinned'], figures['held'],
                             line)
            self.assertEqual(counts['cached'], figures['cached'], line)
            self.assertEqual(counts['free'], figures['free'], line)
        self.assertGreater(counts['cached'], 0)
        self.assertGreater(counts['pinned'], 3)
        self.assertGreater(counts['shared'] + counts['own'], 0)
        self.finish(chat)

    def test_owners(self):
        chat = self.start('-n', '6', '-c', '1536')
        chat.say('Tell me of the sheets and the quires and the pages of the shop. ' * 4)
        held = self.figures(chat)['held']
        _, cells = self.check_map(chat.say('/blocks'))
        self.assertEqual(cells['a'], held)
        chat.say('/fork')
        _, cells = self.check_map(chat.say('/blocks'))
        self.assertEqual((cells['A'], cells.get('a', 0)), (held, 0))
        chat.say('Why?')
        text = chat.say('/blocks')
        _, cells = self.check_map(text)
        self.assertGreater(cells['b'], 0)
        self.assertGreaterEqual(cells['A'], held - 1)
        self.assertRegex(text, r'\nb> branch 2: 2 turns, ')
        self.finish(chat)

    def test_colour(self):
        """Colours on a terminal that has them; the same letters."""
        for env, coloured in (({'TERM': 'xterm', 'NO_COLOR': ''}, True),
                              ({'TERM': 'xterm', 'NO_COLOR': '1'}, False),
                              ({'TERM': 'dumb', 'NO_COLOR': ''}, False)):
            chat = self.start('-n', '6', '-c', '500', env=env)
            chat.say('Who?')
            chat.say('/fork')
            chat.say('Why?')
            text = chat.say('/blocks')
            self.assertEqual('\033[' in text, coloured, env)
            self.check_map(re.sub('\033' + r'\[[0-9;]*m', '', text))
            self.finish(chat)

    def test_piped(self):
        """Standard output in a pipe: the drawing comes without colours, the prompt elsewhere."""
        master, slave = pty.openpty()
        chat = subprocess.Popen([CLI, 'run', '-m', MODEL, '--temp', '0', '-n', '6', '-c', '500'],
                                stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, 'TERM': 'xterm'})
        os.close(slave)
        os.write(master, b'Who?\n/fork\n/blocks\n/nope\n\x04')
        out, err = chat.communicate(timeout=TIMEOUT_S)
        os.close(master)
        self.assertEqual(chat.returncode, 0, err)
        text = out.decode()
        self.check_map(text[text.index('64 blocks of'):])
        self.assertNotRegex(text, '(?m)^> ')
        self.assertIn(b'no command /nope', err)

    def test_no_reader(self):
        """A closed pipe ends the chat with one line."""
        master, slave = pty.openpty()
        reader, writer = os.pipe()
        os.close(reader)
        chat = subprocess.Popen([CLI, 'run', '-m', MODEL, '-n', '2'], stdin=slave, stdout=writer,
                                stderr=subprocess.PIPE)
        os.close(slave)
        os.close(writer)
        os.write(master, b'/blocks\n')
        _, err = chat.communicate(timeout=TIMEOUT_S)
        os.close(master)
        self.assertEqual(chat.returncode, 1)
        self.assertEqual(err.count(b'quire: '), 1, err)
        self.assertIn(b'closed by its reader', err)


class Answers(Case):
    PROMPT = 'When a reader asks for a page, the binder knows which quire holds it.'
    MANNERS = ([], ['--layout', 'contiguous'], ['--block-size', '1'], ['--block-size', '64'],
               ['--block-size', '7', '--threads', '1', '--kv', 'f32,bf16'])

    def run_json(self, *arguments, **more):
        out, err = self.quire('run', '-m', MODEL, '--json', *arguments, **more)
        self.assertEqual(err, b'')
        return json.loads(out)

    def test_equal_to_runs_alone(self):
        """K answers are K runs with their seeds, token for token; some end early."""
        lengths = set()
        for manner in self.MANNERS:
            arguments = ['-p', self.PROMPT, '-n', '200', '--temp', '2.5', '--top-k', '0', '--min-p',
                         '0', '--top-p', '1', '--repeat-penalty', '1.1', *manner]
            got = self.run_json(*arguments, '--n', '7', '--seed', '40')
            self.assertEqual(len(got['answers']), 7)
            for i, answer in enumerate(got['answers']):
                alone = self.run_json(*arguments, '--seed', str(40 + i))
                self.assertEqual(answer['seed'], 40 + i)
                self.assertEqual(answer['output_ids'], alone['output_ids'], (manner, i))
                self.assertEqual(answer['text'], alone['text'])
                self.assertEqual(got['prompt_ids'], alone['prompt_ids'])
                lengths.add(len(answer['output_ids']))
        self.assertGreater(len(lengths), 2)

    def test_greedy(self):
        got = self.run_json('-p', self.PROMPT, '-n', '20', '--temp', '0', '--n', '3')
        alone = self.run_json('-p', self.PROMPT, '-n', '20', '--temp', '0')
        for answer in got['answers']:
            self.assertEqual(answer['output_ids'], alone['output_ids'])

    def test_one(self):
        """--n 1 is as if it were not there."""
        arguments = ['-p', self.PROMPT, '-n', '20', '--seed', '3']
        got, plain = self.run_json(*arguments, '--n', '1'), self.run_json(*arguments)
        self.assertEqual(got['output_ids'], plain['output_ids'])
        self.assertEqual(sorted(got), sorted(plain))
        self.assertEqual((plain['reused_tokens'], plain['computed_tokens']),
                         (0, len(plain['prompt_ids'])))
        self.assertEqual(self.quire('run', '-m', MODEL, *arguments, '--n', '1')[0],
                         self.quire('run', '-m', MODEL, *arguments)[0])

    def test_saving(self):
        """What sharing saved is what can be counted from the lengths."""
        for p in (16, 7):
            got = self.run_json('-p', self.PROMPT, '-n', '20', '--temp', '3', '--n', '5', '--seed',
                                '1', '--block-size', str(p))
            prompt = len(got['prompt_ids'])
            self.assertEqual(got['computed_tokens'], prompt)
            self.assertEqual(got['reused_tokens'], 4 * prompt)
            positions = [prompt + len(a['output_ids']) - 1 for a in got['answers']]
            alone = sum(math.ceil(count / p) for count in positions)
            self.assertEqual(got['kv_blocks'] + got['blocks_saved'], alone)
            self.assertGreaterEqual(got['blocks_shared'], prompt // p)
            self.assertEqual(got['blocks_saved'], 4 * got['blocks_shared'])
            self.assertEqual(got['bytes_saved'], got['blocks_saved'] * p * POSITION_BYTES)
        got = self.run_json('-p', self.PROMPT, '-n', '9', '--n', '3', '--layout', 'contiguous')
        self.assertEqual((got['blocks_saved'], got['bytes_saved']), (0, 0))
        self.assertEqual(got['reused_tokens'], 2 * len(got['prompt_ids']))

    def parts(self, text):
        """The answers in a printed text, by their separators."""
        split = re.split(r'^--- answer (\d+) of (\d+), seed (\d+) ---\n', text, flags=re.M)
        self.assertEqual(split[0], '')
        return [(tuple(map(int, split[i:i + 3])), split[i + 3]) for i in range(1, len(split), 4)]

    def test_text(self):
        """One after the other, each under a line that says which; the same on a terminal."""
        arguments = ['-p', self.PROMPT, '-n', '30', '--temp', '2', '--seed', '9', '--n', '4']
        want = [a['text'] for a in self.run_json(*arguments)['answers']]
        out, err = self.quire('run', '-m', MODEL, *arguments)
        self.assertEqual(err, b'')
        parts = self.parts(out.decode())
        self.assertEqual([head for head, _ in parts], [(i + 1, 4, 9 + i) for i in range(4)])
        for (_, text), wanted in zip(parts, want):
            self.assertTrue(text.endswith('\n'))
            self.assertEqual(text.rstrip('\n'), wanted.rstrip('\n'))
        shown, status = Terminal(self, 'run', '-m', MODEL, *arguments).wait()
        self.assertEqual(status, 0)
        self.assertEqual(shown.replace('\r\n', '\n'), out.decode())

    def test_stats(self):
        _, err = self.quire('run', '-m', MODEL, '-p', self.PROMPT, '-n', '4', '--stats', '--n', '3')
        text = err.decode()
        self.assertRegex(text, r'shared +\d+ blocks by 3 answers: saved \d+ blocks, \d+ bytes')
        self.assertEqual(text.count('\n'), 5)

    def test_ends(self):
        """No new token; a full context; a context that is asked for."""
        got = self.run_json('-p', self.PROMPT, '-n', '0', '--n', '3')
        self.assertEqual([a['output_ids'] for a in got['answers']], [[], [], []])
        prompt = len(got['prompt_ids'])
        self.assertEqual(len(self.parts(self.quire('run', '-m', MODEL, '-p', self.PROMPT, '-n', '0',
                                                   '--n', '3')[0].decode())), 3)
        arguments = ['-p', self.PROMPT, '--temp', '0', '-c', str(prompt + 5), '--n', '2']
        got = self.run_json(*arguments)
        for answer in got['answers']:
            self.assertLessEqual(len(answer['output_ids']), 6)
        _, err = self.quire('run', '-m', MODEL, *arguments)
        if len(got['answers'][0]['output_ids']) == 6:
            self.assertEqual(err.decode().count('the context is full'), 2)

    def test_many(self):
        got = self.run_json('-p', 'hi', '-n', '3', '--n', '256', '--seed', '5')
        self.assertEqual(len(got['answers']), 256)
        self.assertEqual([a['seed'] for a in got['answers']], list(range(5, 261)))
        self.assertGreater(len({tuple(a['output_ids']) for a in got['answers']}), 100)

    def test_exact_memory(self):
        """The memory that is said to be needed is enough, and one block less is not."""
        for new, p in ((20, 16), (2, 16), (20, 7)):
            arguments = ['-p', self.PROMPT, '-n', str(new), '--temp', '0', '--n', '4',
                         '--block-size', str(p)]
            got = self.run_json(*arguments)
            prompt = len(got['prompt_ids'])
            want = [a['output_ids'] for a in got['answers']]
            error = self.refuses('run', '-m', MODEL, *arguments, '--kv-memory', '1000', says='--n')
            needed = int(re.search(r'need (\d+) bytes', error)[1])
            # The prompt's whole blocks, a block to copy from, and what each answer adds.
            blocks = prompt // p + 1 + 4 * math.ceil((prompt % p + new) / p)
            self.assertEqual(needed, blocks * p * POSITION_BYTES)
            got = self.run_json(*arguments, '--kv-memory', str(needed))
            self.assertEqual([a['output_ids'] for a in got['answers']], want)
            self.refuses('run', '-m', MODEL, *arguments, '--kv-memory', str(needed - 1),
                         says='need')

    def test_bad_usage(self):
        for value in ('0', '257', '-1', '1.5', 'x', '', '99999999999999999999'):
            self.refuses('run', '-m', MODEL, '-p', 'hi', '--n', value, status=2, says='--n')
        self.refuses('run', '-m', MODEL, '-p', 'hi', '--n', status=2, says='--n')
        self.refuses('run', '-m', MODEL, '-p', 'hi', '--n', '3', '--seed', str(2**63 - 2), status=2,
                     says='--seed')
        self.quire('run', '-m', MODEL, '-p', 'hi', '-n', '1', '--n', '2', '--seed', str(2**63 - 2))
        self.refuses('run', '-m', MODEL, '-p', 'hi there', '--n', '3', '-c', '3', says='tokens')
        self.refuses('run', '-m', MODEL, '--n', '2', stdin=b'', says='standard input')

    def test_no_chat(self):
        for arguments in (['--n', '2'], ['--n', '256', '--stats']):
            text, status = Terminal(self, 'run', '-m', MODEL, *arguments).wait()
            self.assertEqual(status, 2)
            self.assertRegex(text, r'\Aquire: [^\n]*--n needs a prompt[^\n]*\r\n\Z')

    def test_output_fails(self):
        with open('/dev/full', 'wb') as full:
            for more in ([], ['--json']):
                self.refuses('run', '-m', MODEL, '-p', 'hi', '-n', '5', '--temp', '0', '--n', '3',
                             *more, stdout=full, says='No space left')

    def test_damaged_weights(self):
        path = tiny('f32', '--type', 'F32')
        with open(path, 'rb') as file:
            content = bytearray(file.read())
        content[-600 * 1024:] = b'\0\0\xc0\x7f' * (150 * 1024)
        path = self.write('nan.gguf', bytes(content))
        self.refuses('run', '-m', path, '-p', 'hi', '--n', '3', '--json', says='no numbers')

    def test_pipe_is_no_chat(self):
        """A command in a piped prompt is text."""
        for text in ('/fork', '/back 2', '//help'):
            want = self.run_json('-p', text, '-n', '5', '--temp', '0')
            got = self.run_json(stdin=text.encode(), *['-n', '5', '--temp', '0'])
            self.assertEqual(got['prompt_ids'], want['prompt_ids'])
            self.assertEqual(got['output_ids'], want['output_ids'])


if __name__ == '__main__':
    unittest.main()
