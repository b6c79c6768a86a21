#!/usr/bin/env python3
# make_tokenizer_goldens.py - writes tests/golden/tokenizer with tokenizers and SentencePiece.
# SPDX-License-Identifier: Apache-2.0
"""Writes the goldens of the tokenizer. Run it with a Python that has `tokenizers`, or, for what has
spm in its name and for gemma3, `sentencepiece` and `protobuf`; for gemma3 also `gguf`.

    make_tokenizer_goldens.py vocab     trains vocab.txt on corpus.txt
    make_tokenizer_goldens.py strings   writes strings.txt
    make_tokenizer_goldens.py goldens   writes PRE.fnv for each pre-tokenizer PRE
    make_tokenizer_goldens.py show PRE NUMBER   prints one random string and its ids
    make_tokenizer_goldens.py spm-vocab     trains spm.txt on corpus.txt
    make_tokenizer_goldens.py spm           writes spm.fnv and spm-prefix.fnv
    make_tokenizer_goldens.py gemma3 FILE   writes gemma3.fnv for the vocabulary of a GGUF file

tests/golden/tokenizer/README.md describes the files. Random characters are those that Unicode 14
assigns: the classes of later ones depend on the age of the Unicode tables of both sides.
"""
import pathlib
import re
import struct
import sys
import unicodedata

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'tests/golden/tokenizer'
STRINGS = 10000
MERGES = 2000

CONTROL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|begin_of_text|>', '<|end_of_text|>',
           '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>', '<bos>', '<start_of_turn>',
           '<end_of_turn>', '<tool>']
USER_DEFINED = ['<tool>s', '<think>', '日本', '    x']
SPM_USER_DEFINED = [*USER_DEFINED, '\n', '\n\n', '\n\n\n\n\n', '  ', '   ', "'s"]
# Tokens without a merge: only a pre-tokenizer that takes whole pieces produces them.
WHOLE = [' quire', 'xyzzy', '123', '\n\n\n\n\n', ' 日本語', '!?!?', "'s", '\t\t', 'éé', '   ']
# Bytes that the smollm goldens do without, as the real vocabulary does.
MISSING = [0x04, 0x13, 0x7f]

PIECES = [' ', '  ', '   ', '\n', '\r', '\r\n', '\n\n', '\n\n\n\n\n', '\t', '\t\t', '\v', '\f',
          '\x1c', '\x85', '\xa0', '\u1680', '\u180e', '\u2003', '\u200b', '\u2028', '\u2029',
          '\u202f', '\u3000', '\ufeff', '\0', '\x04', '!\x04!', '\x13', '\x7f', "'", "''", "'s",
          "'S", "'ſ", "'t", "'re", "'RE", "'ve", "'m", "'M", "'ll", "'lL", "'d", "'x", "don't",
          "I'LL", ' the', 'the', 'The', ' quire', 'quire', 'xyzzy', 'temple', 'abdication', '0',
          '7', '12', '123', '1234', ' 5', '3.14', '٣', '²', '½', 'Ⅷ', '四', '\U0001d7d8', 'é',
          'éé', 'e\u0301', 'ǅ', 'ß', 'ﬁ', 'ſ', 'K', 'Ω', '日本', '日本語', ' 日本語', 'テキスト', '한국어',
          'Привет', 'مرحبا', 'שלום', 'नमस्ते', 'ไทย', '👍', '👍🏽', '👨‍👩‍👧', '❤️', '\u200d',
          '\ufe0f', '\u0301', '\ue000', '\U0010fffd', '!', '!!!', '...', '?!', '!?!?', '_', '-',
          '--', '(', ')', '{', '}', ';', '"', '\\', '/', '//', '#', '$', '€', '%20', '…', '—',
          '’', '“', '<', '|', '>', '<|', '|>', '<|im_start|>', '<|im_end|>', '<|im_start|',
          '<|im_', '<|IM_START|>', '<|endoftext|>', '<|endoftext', '<|eot_id|>', '<bos>', '<tool>',
          '<tool>s', '<tool', '<think>', '</think>', '    x', '<start_of_turn>user\n']

# As the tokenizer.json of Llama 3 and of Qwen 2 has them.
LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA.replace('{1,3}', '')


def byte_level_alphabet():
    """The printable character of each byte, as GPT-2 writes them."""
    own = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [b for b in range(256) if b not in own]
    return [chr(b) if b in own else chr(256 + others.index(b)) for b in range(256)]


ALPHABET = byte_level_alphabet()


def byte_level(text):
    return ''.join(ALPHABET[b] for b in text.encode())


# ---- files ----

def write_vocab():
    """Lines: c control token, u user-defined token, t token, m merge of two tokens. The 256 bytes
    stand before the first t or m."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, show_progress=False,
                                  initial_alphabet=sorted(ALPHABET))
    tokenizer.train([str(FOLDER / 'corpus.txt')], trainer)
    model = FOLDER / 'trained'
    model.mkdir()
    _, merges_file = tokenizer.model.save(str(model))
    merges = pathlib.Path(merges_file).read_text().splitlines()[1:]
    for path in model.iterdir():
        path.unlink()
    model.rmdir()
    lines = ['c ' + text for text in CONTROL] + ['u ' + text for text in USER_DEFINED]
    lines += ['t ' + byte_level(text) for text in WHOLE] + ['m ' + merge for merge in merges]
    (FOLDER / 'vocab.txt').write_text('\n'.join(lines) + '\n')


def escape(text):
    return ''.join(chr(b) if 0x21 <= b < 0x7f and b != 0x5c else f'\\x{b:02x}'
                   for b in text.encode())


def unescape(text):
    return re.sub(rb'\\x(..)', lambda m: bytes([int(m[1], 16)]), text.encode()).decode()


def write_strings():
    """Lines: s text, r first and last code point of a range."""
    lines = ['s ' + escape(piece) for piece in PIECES]
    kinds = [unicodedata.category(chr(code)) not in ('Cn', 'Cs') for code in range(0x110000)]
    code = 0
    while code < len(kinds):
        if kinds[code]:
            first = code
            while code + 1 < len(kinds) and kinds[code + 1]:
                code += 1
            lines.append(f'r {first:x} {code:x}')
        code += 1
    (FOLDER / 'strings.txt').write_text('\n'.join(lines) + '\n')


def read_vocab(pre):
    from tokenizers import AddedToken
    special, tokens, merges = [], {}, []
    lines = [line.split(' ', 1) for line in (FOLDER / 'vocab.txt').read_text().splitlines()]
    for kind, text in lines:
        if kind in 'cu':
            tokens[text] = len(tokens)
            special.append(AddedToken(text, special=kind == 'c', normalized=False))
    for byte, text in enumerate(ALPHABET):
        missing = pre == 'smollm' and byte in MISSING
        tokens[f'<missing {byte}>' if missing else text] = len(tokens)
    for kind, text in lines:
        if kind == 'm':
            merges.append(tuple(text.split(' ')))
        if kind in 'tm':
            tokens.setdefault(text.replace(' ', ''), len(tokens))
    return special, tokens, merges


# ---- goldens ----

def tokenizers_of(pre):
    """Without and with special tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    def split(pattern):
        return pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    splitters = {'smollm': pre_tokenizers.Sequence(
                     [pre_tokenizers.Digits(individual_digits=True), gpt2]),
                 'gpt-2': gpt2, 'llama-bpe': split(LLAMA), 'qwen2': split(QWEN)}
    special, tokens, merges = read_vocab(pre)
    made = []
    for _ in range(2):
        tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=merges,
                                         ignore_merges=pre == 'llama-bpe'))
        tokenizer.pre_tokenizer = splitters[pre]
        made.append(tokenizer)
    made[1].add_tokens(special)
    if made[1].get_vocab_size() != len(tokens):
        sys.exit('a special token is not in the vocabulary')
    return made


class Random:
    """splitmix64 (Steele, Lea, Flood 2014), as tests/support/support.c has it."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9e3779b97f4a7c15) & mask
        value = self.state
        value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9 & mask
        value = (value ^ value >> 27) * 0x94d049bb133111eb & mask
        return ((value ^ value >> 31) >> 32) * limit >> 32


def read_strings():
    lines = [line.split(' ') for line in (FOLDER / 'strings.txt').read_text().splitlines()]
    return ([unescape(line[1]) for line in lines if line[0] == 's'],
            [(int(line[1], 16), int(line[2], 16)) for line in lines if line[0] == 'r'])


def random_string(number, pieces, ranges):
    random = Random(number)
    text = ''
    for _ in range(1 + random.below(16)):
        kind = random.below(10)
        if kind < 6:
            piece = pieces[random.below(len(pieces))]
            text += piece * (1 if kind < 5 else 2 + random.below(5))
        elif kind < 9:
            first, last = ranges[random.below(len(ranges))]
            for _ in range(1 if kind < 8 else 1 + random.below(8)):
                text += chr(first + random.below(last - first + 1))
        else:
            for _ in range(1 + random.below(8)):
                text += chr(32 + random.below(95))
    return text


def fnv(ids):
    value = 0xcbf29ce484222325
    for byte in struct.pack(f'<{len(ids) + 1}I', len(ids), *ids):
        value = (value ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return value


def write_hashes(name, encode):
    """encode(text, parse_special) gives ids."""
    pieces, ranges = read_strings()
    hashes = [fnv(encode(random_string(number, pieces, ranges), number % 2 == 1))
              for number in range(STRINGS)]
    (FOLDER / f'{name}.fnv').write_bytes(struct.pack(f'<{STRINGS}Q', *hashes))


def write_goldens():
    for pre in ('smollm', 'gpt-2', 'llama-bpe', 'qwen2'):
        made = tokenizers_of(pre)
        write_hashes(pre, lambda text, special, made=made: made[special].encode(text).ids)


# ---- SentencePiece ----

def write_spm_vocab():
    """Lines: type, score, text. Four neighbours share a score, so that places decide, and every
    fortieth token is of type UNUSED, so that it comes apart again."""
    import io
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        input=str(FOLDER / 'corpus.txt'), model_writer=trained, model_type='bpe', vocab_size=1500,
        character_coverage=1.0, normalization_rule_name='identity', add_dummy_prefix=False,
        remove_extra_whitespaces=False, bos_id=-1, eos_id=-1, minloglevel=2)
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    lines = [(2, 0, '<unk>')] + [(3, 0, text) for text in CONTROL]
    lines += [(4, 0, text) for text in SPM_USER_DEFINED]
    lines += [(6, 0, f'<0x{byte:02X}>') for byte in range(256)]
    taken = {text.replace(' ', '\u2581') for _, _, text in lines}
    normal = [piece for piece in model.pieces if piece.type == 1 and piece.piece not in taken]
    lines += [(5 if i % 40 == 39 else 1, int(piece.score) // 4, piece.piece)
              for i, piece in enumerate(normal)]
    (FOLDER / 'spm.txt').write_text(
        ''.join(f'{kind} {score} {escape(text)}\n' for kind, score, text in lines))


def spm_tokenizer(name):
    import reference_spm
    lines = [line.split(' ') for line in (FOLDER / 'spm.txt').read_text().splitlines()]
    types = [int(line[0]) for line in lines]
    if name == 'spm-prefix':  # which also does without bytes
        types = [3 if kind == 6 else kind for kind in types]
    return reference_spm.Tokenizer([unescape(line[2]) for line in lines],
                                   [float(line[1]) for line in lines], types,
                                   name == 'spm-prefix')


def main():
    command = sys.argv[1:2]
    if command == ['vocab']:
        write_vocab()
    elif command == ['strings']:
        write_strings()
    elif command == ['goldens']:
        write_goldens()
    elif command == ['spm-vocab']:
        write_spm_vocab()
    elif command == ['spm']:
        for name in ('spm', 'spm-prefix'):
            write_hashes(name, spm_tokenizer(name).encode)
    elif command == ['gemma3'] and len(sys.argv) == 3:
        import reference_spm
        write_hashes('gemma3', reference_spm.from_gguf(sys.argv[2]).encode)
    elif command == ['show'] and len(sys.argv) == 4 and sys.argv[2].startswith('spm'):
        number = int(sys.argv[3])
        text = random_string(number, *read_strings())
        print(ascii(text), spm_tokenizer(sys.argv[2]).encode(text, number % 2 == 1))
    elif command == ['show'] and len(sys.argv) == 4:
        text = random_string(int(sys.argv[3]), *read_strings())
        print(ascii(text), tokenizers_of(sys.argv[2])[int(sys.argv[3]) % 2].encode(text).ids)
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main()
