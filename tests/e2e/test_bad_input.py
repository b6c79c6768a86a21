# test_bad_input.py - whatever is wrong is one line on stderr and the right exit status.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import random
import struct
import subprocess
import unittest

from cli import CLI, Case, TIMEOUT_S, tiny

MODEL = tiny('chat')
BASE = tiny('base', '--base-model')
COMMANDS = (['run', '-p', 'hi', '-n', '2'], ['tokenize', '-p', 'hi'],
            ['eval', '--ids', '/dev/stdin'])
USAGE = 2


class BadUsage(Case):
    def test_commands(self):
        self.refuses(status=USAGE, says='no command')
        self.refuses('walk', status=USAGE, says='walk')
        self.refuses('bench', status=USAGE)
        self.refuses('bench', 'hardware', status=USAGE, says='hardware')
        self.refuses('info', status=USAGE, says='no model')

    def test_missing_model(self):
        for command in ('run', 'tokenize', 'eval', 'bench model'):
            more = ['-f', 'x'] if command == 'eval' else []
            self.refuses(*command.split(), *more, status=USAGE, says='-m')

    def test_options(self):
        for arguments in (['--nope'], ['-x'], ['-m'], ['--temp'], ['extra'], ['--json=1'],
                          ['-n', '5x'], ['-n', '-1'], ['-n', ''], ['-n', ' 5'], ['-n', '1e3'],
                          ['-n', '99999999999999999999'], ['--temp', 'nan'], ['--temp', 'inf'],
                          ['--temp', '-1'], ['--temp', '0x1'], ['--temp', '1 '], ['--temp', ''],
                          ['--top-p', '0'], ['--top-p', '1.01'], ['--min-p', '2'],
                          ['--top-k', '4294967296'], ['--repeat-penalty', '0'], ['-c', '0'],
                          ['-c', '2000000000'], ['--block-size', '0'], ['--block-size', '70000'],
                          ['--kv', 'f8'], ['--kv', 'f16,'], ['--kv', 'f16,f16,f16'], ['--kv', ''],
                          ['--kv', 'u32'], ['--kv', 'q8,'], ['--kv-rotation', 'random'],
                          ['--kv-memory', '12Q'], ['--kv-memory', 'G'], ['--kv-memory', '-1'],
                          ['--kv-memory', '99999999999T'], ['--layout', 'best'],
                          ['--threads', '0'], ['--threads', '5000'], ['--template', 'jinja']):
            with self.subTest(arguments):
                self.refuses('run', '-m', MODEL, '-p', 'hi', *arguments, status=USAGE)

    def test_contradictions(self):
        for arguments in (['-p', 'a', '-f', 'b'], ['-p', 'a', '-'], ['-f', 'b', '-'],
                          ['-p', 'a', '--ids', 'c'], ['-p', 'a', '--raw', '--system', 's'],
                          ['--ids', 'c', '--template', 'chatml']):
            with self.subTest(arguments):
                self.refuses('run', '-m', MODEL, *arguments, status=USAGE)
        self.refuses('tokenize', '-m', MODEL, '-p', 'a', '-', status=USAGE)
        self.refuses('eval', '-m', MODEL, status=USAGE)
        self.refuses('eval', '-m', MODEL, '-f', 'a', '--ids', 'b', status=USAGE)
        self.refuses('eval', '-m', MODEL, '--ids', 'b', '--chunks', '2', status=USAGE)
        for arguments in (['--compare', 'f16'], ['--compare', ''], ['--compare', 'f16 q5'],
                          ['--compare', 'f16 q8,q4,q4'], ['--compare', 'f16 ' * 13],
                          ['--compare', 'f16 q8', '--logits', 'x'], ['--svg', 'x']):
            with self.subTest(arguments):
                self.refuses('eval', '-m', MODEL, '-f', 'a', *arguments, status=USAGE)
        self.refuses('eval', '-m', MODEL, '-f', 'a', '--compare', 'f16 q5', status=USAGE,
                     says='q8 or q4')
        self.refuses('bench', 'model', '-m', MODEL, '--depth', '1,', status=USAGE)
        self.refuses('bench', 'model', '-m', MODEL, '--no-cascade', status=USAGE, says='--shared')


class BadModel(Case):
    def each(self, path, says=''):
        self.refuses('info', path, says=says)
        for command in COMMANDS:
            self.refuses(command[0], '-m', path, *command[1:], stdin=b'[1]', says=says)

    def changed(self, at, data):
        with open(MODEL, 'rb') as file:
            content = bytearray(file.read())
        content[at:at + len(data)] = data
        return self.write('changed.gguf', bytes(content))

    def test_no_model(self):
        self.each(self.path('missing.gguf'), says='missing.gguf')
        self.each(self.folder.name)
        self.each('/dev/null')
        self.each(self.write('empty.gguf', b''), says='empty.gguf')
        self.each(self.write('text.gguf', b'This is a text and no model at all.\n'))

    def test_versions(self):
        self.each(self.changed(4, struct.pack('<I', 2)), says='version')
        self.each(self.changed(4, struct.pack('<I', 4)), says='version')
        self.each(self.changed(4, struct.pack('>I', 3)), says='big-endian')

    def test_truncated(self):
        with open(MODEL, 'rb') as file:
            content = file.read()
        for size in (3, 4, 23, 24, 100, 5000, len(content) // 2, len(content) - 1):
            self.each(self.write('short.gguf', content[:size]), says='short.gguf')

    def test_huge_counts(self):
        for at in (8, 16):  # tensors, keys
            for count in (2**63, 2**64 - 1, 2**32, 10**9):
                self.each(self.changed(at, struct.pack('<Q', count)))

    def test_architecture(self):
        with open(MODEL, 'rb') as file:
            content = file.read()
        at = content.index(b'llama', content.index(b'general.architecture'))
        path = self.changed(at, b'lamas')
        self.refuses('info', path, says='lamas')
        self.refuses('run', '-m', path, '-p', 'hi', says='lamas')

    def test_bit_flips(self):
        """Flips in the header: an answer or one line, never a crash."""
        with open(MODEL, 'rb') as file:
            content = file.read()
        rng = random.Random(1)
        for _ in range(80):
            data = bytearray(content)
            for _ in range(rng.choice((1, 1, 3))):
                data[rng.randrange(24000)] ^= 1 << rng.randrange(8)
            path = self.write('flipped.gguf', bytes(data))
            done = subprocess.run([CLI, 'run', '-m', path, '-p', 'hi', '-n', '2', '--raw', '--temp',
                                   '0'],
                                  capture_output=True, timeout=TIMEOUT_S, check=False)
            self.assertIn(done.returncode, (0, 1), done.stderr)
            self.assertRegex(done.stderr, rb'\A(quire: [^\n]+\n)?\Z')
            self.assertEqual(done.returncode == 0, done.stderr == b'')

    def test_damaged_weights(self):
        """A matrix of not-a-numbers is said to be one."""
        path = tiny('f32', '--type', 'F32')
        with open(path, 'rb') as file:
            content = bytearray(file.read())
        content[-600 * 1024:] = struct.pack('<f', float('nan')) * (150 * 1024)
        path = self.write('nan.gguf', bytes(content))
        self.refuses('run', '-m', path, '-p', 'hi', says='no numbers')
        self.refuses('eval', '-m', path, '--ids', '/dev/stdin', stdin=b'[1,2,3]',
                     says='no numbers')
        # One token predicts nothing, yet its logits are no numbers; no file may hold them.
        for ids in (b'[1,2,3]', b'[5]'):
            out = self.path('out.f32')
            self.refuses('eval', '-m', path, '--ids', '/dev/stdin', '--logits', out, stdin=ids,
                         says='no numbers')
            self.assertFalse(os.path.exists(out))

    def test_unknown_template(self):
        with open(MODEL, 'rb') as file:
            content = file.read()
        at = content.index(b'tokenizer.chat_template')
        head, tail = content[:at], content[at:]
        path = self.write('other.gguf', head + tail.replace(b'<|im_start|>', b'<|im_begin|>'))
        error = self.refuses('run', '-m', path, '-p', 'hi')
        self.assertIn('--raw', error)
        self.assertIn('--template', error)
        self.quire('run', '-m', path, '-p', 'hi', '-n', '1', '--raw')
        self.quire('run', '-m', path, '-p', 'hi', '-n', '1', '--template', 'chatml')

    def test_no_template(self):
        _, err = self.quire('run', '-m', BASE, '-p', 'hi', '-n', '1')
        self.assertRegex(err, rb'\Aquire: [^\n]+no chat template[^\n]+\n\Z')
        self.refuses('run', '-m', BASE, '-p', 'hi', '--system', 'x', says='--template')


class BadText(Case):
    def test_prompt(self):
        for text in (b'', b'a\xffb', b'a\0b', b'\xc3', b'\xed\xa0\x80'):
            path = self.write('prompt.txt', text)
            with self.subTest(text):
                self.refuses('run', '-m', MODEL, '-f', path, says='prompt.txt')
                self.refuses('run', '-m', MODEL, '-', stdin=text, says='standard input')
                self.refuses('run', '-m', MODEL, stdin=text, says='standard input')
        self.refuses('run', '-m', MODEL, '-p', '', says='empty')
        self.refuses('run', '-m', MODEL, '-p', b'\xff', says='byte 0')
        self.refuses('run', '-m', MODEL, '-p', 'a', '--system', b'\xff', says='--system')
        self.refuses('run', '-m', MODEL, '-f', self.path('none.txt'), says='none.txt')
        self.refuses('run', '-m', MODEL, '-f', self.folder.name, says=self.folder.name)

    def test_tokenize(self):
        self.assertEqual(self.quire('tokenize', '-m', MODEL, '-p', '')[0], b'[]\n')
        self.assertEqual(len(json.loads(self.quire('tokenize', '-m', MODEL, stdin=b'a\0b')[0])), 3)
        self.refuses('tokenize', '-m', MODEL, '-', stdin=b'\xff')

    def test_ids(self):
        for text in ('', '[', '{}', '3', '[1.5]', '["1"]', '[-1]', '[99999]', '[1,[2]]', 'null',
                     '{"ids": 3}', '[18446744073709551616]', '[' * 5000):
            path = self.write('ids.json', text)
            with self.subTest(text[:20]):
                self.refuses('run', '-m', MODEL, '--ids', path, says='ids.json')
                self.refuses('eval', '-m', MODEL, '--ids', path, says='ids.json')
                self.refuses('tokenize', '-m', MODEL, '--decode', '-p', text)
        path = self.write('ids.json', '[]')
        self.refuses('run', '-m', MODEL, '--ids', path)
        self.refuses('eval', '-m', MODEL, '--ids', path)

    def test_too_long(self):
        text = 'a b c ' * 2000
        self.refuses('run', '-m', MODEL, '-', stdin=text.encode(), says='context holds 4096')
        self.refuses('run', '-m', MODEL, '-p', 'hello', '-c', '3', says='raise -c')
        self.refuses('run', '-m', MODEL, '-p', 'hello', '-c', '4097', says='4096')
        path = self.write('ids.json', json.dumps([5] * 30))
        self.refuses('run', '-m', MODEL, '--ids', path, '-c', '29', says='30 tokens')
        self.refuses('eval', '-m', MODEL, '--ids', path, '-c', '29', says='30 tokens')
        self.quire('run', '-m', MODEL, '--ids', path, '-c', '30')

    def test_kv_memory(self):
        # 2 layers, 2 heads of 32, K and V in two bytes: 512 bytes a position.
        error = self.refuses('run', '-m', MODEL, '-p', 'hi', '-c', '100', '--kv-memory', '10K')
        self.assertIn(str(112 * 512), error)  # 7 blocks of 16
        self.quire('run', '-m', MODEL, '-p', 'hi', '-c', '100', '-n', '1', '--kv-memory', '56K')
        self.refuses('run', '-m', MODEL, '-p', 'hi', '--kv-memory', '1', says=' bytes')
        self.refuses('eval', '-m', MODEL, '--ids', self.write('i.json', '[1,2,3]'), '--kv-memory',
                     '100', says='bytes')


class BadOutput(Case):
    def ids(self):
        return self.write('ids.json', '[1,2,3]')

    def test_logits(self):
        self.refuses('eval', '-m', MODEL, '--ids', self.ids(), '--logits', '/dev/full',
                     says='No space left')
        self.refuses('eval', '-m', MODEL, '--ids', self.ids(), '--logits', '/no/such/folder/x',
                     says='/no/such/folder/x')
        self.refuses('eval', '-m', MODEL, '--ids', self.ids(), '--logits', self.folder.name)
        self.assertEqual(os.listdir(self.folder.name), ['ids.json'])

    def test_logits_keep_links_and_modes(self):
        """A link is written through, not replaced; a file keeps who may read it."""
        real, link = self.write('real', 'old'), self.path('link')
        os.symlink('real', link)
        self.quire('eval', '-m', MODEL, '--ids', self.ids(), '--logits', link)
        self.assertTrue(os.path.islink(link))
        whole = os.path.getsize(real)
        self.assertGreater(whole, 3)
        secret = self.write('secret', 'x' * (whole + 9))
        os.chmod(secret, 0o600)
        self.quire('eval', '-m', MODEL, '--ids', self.ids(), '--logits', secret)
        self.assertEqual(os.stat(secret).st_mode & 0o777, 0o600)
        self.assertEqual(os.path.getsize(secret), whole)

    def test_no_partial_logits(self):
        """A file size limit stands for the full disk."""
        out = self.path('out.f32')
        command = 'trap "" XFSZ; ulimit -f 1; exec "$0" "$@"'
        done = subprocess.run(['bash', '-c', command, CLI, 'eval', '-m', MODEL, '--ids', self.ids(),
                               '--logits', out], capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, rb'\Aquire: [^\n]*out\.f32[^\n]*\n\Z')
        self.assertEqual(os.listdir(self.folder.name), ['ids.json'])

    def test_full_stdout(self):
        with open('/dev/full', 'wb') as full:
            for arguments in (['--help'], ['--version'], ['run', '--help'], ['info', MODEL],
                              ['tokenize', '-m', MODEL, '-p', 'hi'],
                              ['run', '-m', MODEL, '-p', 'hi', '-n', '5', '--temp', '0'],
                              ['run', '-m', MODEL, '-p', 'hi', '-n', '5', '--json'],
                              ['eval', '-m', MODEL, '--ids', self.ids()]):
                with self.subTest(arguments):
                    self.refuses(*arguments, stdout=full, says='No space left')

    def test_closed_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, 'wb') as closed:
            # Greedy, as a sampled answer may be empty and then writes nothing.
            self.refuses('run', '-m', MODEL, '-p', 'hi', '-n', '500', '--temp', '0', stdout=closed,
                         says='closed')
        # The reader goes away in the middle.
        run = subprocess.Popen([CLI, 'run', '-m', MODEL, '-p', 'hi', '-n', '4000', '--temp', '5'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        run.stdout.read(1)
        run.stdout.close()
        error = run.stderr.read()
        run.stderr.close()
        self.assertIn(run.wait(TIMEOUT_S), (0, 1))
        self.assertRegex(error, rb'\A(quire: [^\n]+\n)?\Z')


if __name__ == '__main__':
    unittest.main()
