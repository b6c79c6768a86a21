# test_chat.py - the chat on a terminal, played on a pseudo-terminal.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import re
import unittest

from cli import Case, tiny
from terminal import CTRL_C, CTRL_D, PROMPT, Terminal

MODEL = tiny('chat')
BASE = tiny('base', '--base-model')
SLOW = tiny('slow', '--layers', '16')


class Chat(Case):
    def start(self, *arguments, model=MODEL):
        terminal = Terminal(self, 'run', '-m', model, '--temp', '0', *arguments)
        terminal.greeting = terminal.until_prompt()
        return terminal

    def prompt_ids(self, *arguments):
        return json.loads(self.quire('run', '-m', MODEL, '--json', '-n', '0',
                                     *arguments)[0])['prompt_ids']

    def test_turns(self):
        """The second turn is answered in the light of the first, and costs only itself."""
        system = 'The shop has only so many sheets. ' * 12
        first = len(self.prompt_ids('-p', 'Who?', '--system', system))
        chat = self.start('-n', '9', '--system', system, '--stats')
        self.assertIn('Ctrl-D', chat.greeting)
        answer = chat.say('Who?')
        alone = self.quire('run', '-m', MODEL, '-p', 'Who?', '--system', system, '-n', '9',
                           '--temp', '0')[0].decode()
        self.assertEqual(answer.rstrip('\n'), alone.rstrip('\n'))
        chat.say('Where?')
        chat.press(CTRL_D)
        rest, status = chat.wait()
        self.assertEqual(status, 0)
        prompt, answers = map(int, re.findall(r'(\d+) tokens,', rest))
        self.assertLess(prompt, first + 50)
        self.assertGreater(prompt, first)
        self.assertLessEqual(answers, 18)

    def test_second_turn_sees_the_first(self):
        """The same as one prompt that holds the whole conversation."""
        chat = self.start('-n', '12')
        chat.say('Who?')
        second = chat.say('Where?')
        first = json.loads(self.quire('run', '-m', MODEL, '-p', 'Who?', '--json', '-n', '12',
                                      '--temp', '0')[0])
        between = ('<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n')
        answer = [i for i in first['output_ids'] if i != 2]
        whole = first['prompt_ids'] + answer + json.loads(
            self.quire('tokenize', '-m', MODEL, '-p', between)[0])
        alone = self.quire('run', '-m', MODEL, '--ids', self.write('w.json', json.dumps(whole)),
                           '-n', '12', '--temp', '0')[0].decode()
        self.assertEqual(second.rstrip('\n'), alone.rstrip('\n'))

    def test_overflow(self):
        """Old turns go, one line says so, and the chat goes on."""
        chat = self.start('-c', '120', '-n', '10', '--stats')
        dropped = 0
        for turn in range(25):
            text = chat.say(f'Question number {turn}: who has the sheets?')
            lines = [line for line in text.split('\n') if line.startswith('quire: ')]
            self.assertLessEqual(len(lines), 1, text)
            for line in lines:
                self.assertRegex(line, r'context of 120 positions is full: dropped the oldest \d+')
                dropped += 1
        self.assertGreater(dropped, 3)
        self.assertLessEqual(int(re.search(r'(\d+) held', chat.say('/stats'))[1]), 8)
        chat.press(CTRL_D)
        rest, status = chat.wait()
        self.assertEqual(status, 0)
        # As much again may be cached.
        self.assertLessEqual(int(re.search(r'(\d+) blocks', rest)[1]), 16)

    def test_overflow_inside_an_answer(self):
        chat = self.start('-c', '150', '--min-p', '0')
        text = ''
        for _ in range(3):
            text += chat.say('Go on.')
        self.assertRegex(text, r'quire: the context (of 150 positions )?is full')
        self.assertIn('the answer ends here', text)
        self.assertNotRegex(text, r'[^\n]quire: the context')  # a line of its own
        chat.press(CTRL_D)
        self.assertEqual(chat.wait()[1], 0)

    def test_long_message(self):
        chat = self.start('-c', '60', '-n', '4')
        self.assertIn('longer than the context of 60', chat.say('who has the sheets? ' * 20))
        self.assertNotIn('quire:', chat.say('Who?'))
        chat.press(CTRL_D)
        self.assertEqual(chat.wait()[1], 0)

    def test_bad_messages(self):
        chat = self.start('-n', '4')
        self.assertEqual(chat.say(''), '')
        self.assertEqual(chat.say('   '), '')
        os.write(chat.fd, b'a\xffb\n')
        self.assertIn('not UTF-8', chat.until_prompt())
        self.assertNotIn('quire:', chat.say('Who?'))
        chat.press(CTRL_D)
        self.assertEqual(chat.wait()[1], 0)

    def test_interrupted_answer(self):
        """Ctrl-C stops the answer and keeps the chat. This model answers "Tell me all." until the
        context is full, which takes it long."""
        chat = self.start('--stats', model=SLOW)
        os.write(chat.fd, b'Tell me all.\n')
        while len(chat.output) < 60:
            self.assertTrue(chat.read())
        chat.press(CTRL_C)
        chat.until_prompt()
        os.write(chat.fd, b'And now?\n')
        while len(chat.output) < 60 and not chat.output.endswith(b'\n' + PROMPT):
            self.assertTrue(chat.read())
        chat.press(CTRL_C)  # stops the answer, or the chat where the answer is over
        chat.press(CTRL_D)
        rest, status = chat.wait()
        self.assertEqual(status, 0)
        self.assertLess(int(re.search(r'answer +(\d+)', rest)[1]), 4000)

    def test_ends(self):
        for key in (CTRL_C, CTRL_D):
            chat = self.start()
            chat.press(key)
            self.assertEqual(chat.wait()[1], 0)

    def test_base_model(self):
        chat = self.start('-n', '5', model=BASE)
        self.assertEqual(len(re.findall('quire: .*no chat template', chat.greeting)), 1)
        self.assertNotIn('quire:', chat.say('Once upon'))
        self.assertNotIn('quire:', chat.say('a time'))
        chat.press(CTRL_D)
        self.assertEqual(chat.wait()[1], 0)

    def test_json_is_no_chat(self):
        chat = Terminal(self, 'run', '-m', MODEL, '--json')
        text, status = chat.wait()
        self.assertEqual(status, 2)
        self.assertIn('--json', text)

    def test_progress_goes_away(self):
        """On a terminal a bar may come; it never stays, and nothing of it is in the answer."""
        path = self.write('long.txt', 'who has the sheets? ' * 180)
        terminal = Terminal(self, 'run', '-m', MODEL, '-f', path, '-n', '3', '--temp', '0')
        text, status = terminal.wait()
        self.assertEqual(status, 0)
        last_line = text.rstrip('\r\n').split('\r')[-1]
        self.assertNotIn('#', last_line)
        out, err = self.quire('run', '-m', MODEL, '-f', path, '-n', '3', '--temp', '0')
        self.assertEqual(err, b'')
        self.assertEqual(last_line.strip(), out.decode().strip())


if __name__ == '__main__':
    unittest.main()
