#!/usr/bin/env python3
# make_tiny_model.py - writes a tiny random model of either architecture as GGUF, for the tests.
# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny random model of the llama or gemma3 architecture as GGUF, for the tests.

The same arguments give the same bytes on every machine. Quantised tensors are made of random
blocks in their own format (nothing is quantised), scaled so that activations stay of order 1.
A type whose blocks do not fill a row of some tensor gives way to Q8_0 there, or to F16.
"""
import argparse
import hashlib
import random
import re
import struct
import sys

EMBEDDING = 256  # one block of the K-quants
LAYER_TYPES = {  # of --type mixed, per layer modulo 2; with the embedding all eleven types
    'attn_q': ('Q4_K', 'Q5_1'),
    'attn_k': ('Q5_K', 'BF16'),
    'attn_v': ('Q8_0', 'F32'),
    'attn_output': ('F16', 'Q8_0'),
    'ffn_gate': ('Q4_0', 'Q6_K'),
    'ffn_up': ('Q4_1', 'Q5_K'),
    'ffn_down': ('Q5_0', 'Q4_K'),
}
MIXED_EMBEDDING, MIXED_OUTPUT = 'Q6_K', 'Q4_1'
WINDOW = 8  # of gemma3: far less than a prompt of the tests
SPM_SPECIAL = {'<pad>': 3, '<eos>': 3, '<bos>': 3, '<unk>': 2, '<start_of_turn>': 3,
               '<end_of_turn>': 3, '\n\n': 4, '  ': 4}  # text: type
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n'"
          " + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
GEMMA = ("{{ bos_token }}{% for message in messages %}"
         "{{ '<start_of_turn>' + message['role'] + '\\n' + message['content'] | trim"
         " + '<end_of_turn>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}")
# What the merges are learnt from.
TEXT = """A quire is a gathering of pages. The printer folds the large sheets, lays one inside the
other, and sews them along the fold; the binder takes the quires in their order and makes the book
of them. Nobody counts the single leaves of a book when the quires are right. When a reader asks
for a page, the binder knows which quire holds it, and where in the quire it lies. Two books may
share the same first quires, for the printer made many copies of every sheet, and only their ends
are different. When a quire is no longer read by anyone, its paper is given back to the shop, where
it waits until somebody has something new to write. The shop has only so many sheets. It lends them
one quire at a time, never more than is needed, and it keeps a list of who has what. In the evening
the master counts: the sheets that are lent and the sheets that lie on the shelf must be all the
sheets there are. If one is missing, no work goes on before it is found. That is the whole secret
of the trade, and it is the reason why the shop has stood for such a long time."""


# ---- the vocabulary: 3 special tokens, 256 bytes, learnt merges, unused tokens up to --vocab ----

def byte_symbols():
    """The character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def learn_merges(count):
    """Up to count pairs, the most frequent first; among equals the smallest."""
    symbols = byte_symbols()
    pieces = re.findall(r' ?[A-Za-z]+|[^A-Za-z\s]+|\s', TEXT)
    words = [[symbols[b] for b in piece.encode()] for piece in pieces]
    merges = []
    while len(merges) < count:
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i:i + 2] = [word[i] + word[i + 1]]
                i += 1
    return merges


def vocabulary(size):
    """(tokens, token types, merges)"""
    symbols = byte_symbols()
    tokens = SPECIAL + sorted(symbols.values())
    merges = learn_merges(size - len(tokens))
    tokens += [a + b for a, b in merges]
    types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
    unused = size - len(tokens)
    tokens += [f'<|unused_{i}|>' for i in range(unused)]
    return tokens, types + [5] * unused, [a + ' ' + b for a, b in merges]


def spm_vocabulary(size):
    """(tokens, token types, scores) as SentencePiece has them: a merge is a token with a score."""
    tokens, types = list(SPM_SPECIAL), list(SPM_SPECIAL.values())
    tokens += [f'<0x{byte:02X}>' for byte in range(256)]
    types += [6] * 256
    scores = [0.0] * len(tokens)
    space = byte_symbols()[0x20]
    plain = {chr(code) for code in range(0x21, 0x7f)}
    words = [a + b for a, b in learn_merges(150)] + sorted(plain | {space})
    found = [word.replace(space, '\u2581') for word in words if set(word) <= plain | {space}]
    found = found[:size - len(tokens)]
    tokens += found
    types += [1] * len(found)
    scores += [float(-rank) for rank in range(len(found))]
    unused = size - len(tokens)
    tokens += [f'<unused{i}>' for i in range(unused)]
    return tokens, types + [3] * unused, scores + [0.0] * unused


# ---- random tensors: each function gives one block of its type with deviation sigma ----

def half(x):
    return struct.pack('<e', x)


def jitter(rng, x):
    return x * (0.75 + 0.5 * rng.random())


def signed(rng, x):
    return jitter(rng, x if rng.random() < 0.5 else -x)


def uniform(rng, sigma):
    return sigma * 3 ** 0.5 * (2 * rng.random() - 1)


def deviation(levels):
    """Of an integer drawn evenly from so many neighbours."""
    return ((levels * levels - 1) / 12) ** 0.5


def block_f32(rng, sigma):
    return struct.pack('<f', uniform(rng, sigma))


def block_f16(rng, sigma):
    return half(uniform(rng, sigma))


def block_bf16(rng, sigma):
    return struct.pack('<f', uniform(rng, sigma))[2:]


def block_q8_0(rng, sigma):
    return half(jitter(rng, sigma / deviation(256))) + rng.randbytes(32)


def block_q4_0(rng, sigma):
    return half(signed(rng, sigma / deviation(16))) + rng.randbytes(16)


def block_q4_1(rng, sigma):
    d = signed(rng, sigma / deviation(16))
    return half(d) + half(-7.5 * d) + rng.randbytes(16)


def block_q5_0(rng, sigma):
    return half(signed(rng, sigma / deviation(32))) + rng.randbytes(4 + 16)


def block_q5_1(rng, sigma):
    d = signed(rng, sigma / deviation(32))
    return half(d) + half(-15.5 * d) + rng.randbytes(4 + 16)


def k_scales(rng):
    """Eight 6-bit scales and eight 6-bit minima near them, packed into 12 bytes."""
    s = [rng.randrange(16, 64) for _ in range(8)]
    m = [min(63, max(0, x + rng.randrange(-3, 4))) for x in s]
    low = [s[i] | s[i + 4] >> 4 << 6 for i in range(4)]
    middle = [m[i] | m[i + 4] >> 4 << 6 for i in range(4)]
    high = [s[i + 4] & 15 | (m[i + 4] & 15) << 4 for i in range(4)]
    return bytes(low + middle + high)


def block_q4_k(rng, sigma):
    d = jitter(rng, sigma / (40 * deviation(16)))
    return half(d) + half(7.5 * d) + k_scales(rng) + rng.randbytes(128)


def block_q5_k(rng, sigma):
    d = jitter(rng, sigma / (40 * deviation(32)))
    return half(d) + half(15.5 * d) + k_scales(rng) + rng.randbytes(32 + 128)


def block_q6_k(rng, sigma):
    scales = [rng.choice((-1, 1)) * rng.randrange(20, 128) for _ in range(16)]
    d = jitter(rng, sigma / (75 * deviation(64)))
    return rng.randbytes(128 + 64) + struct.pack('16b', *scales) + half(d)


TYPES = {  # name: (number in the file, elements of a block, block)
    'F32': (0, 1, block_f32),
    'F16': (1, 1, block_f16),
    'Q4_0': (2, 32, block_q4_0),
    'Q4_1': (3, 32, block_q4_1),
    'Q5_0': (6, 32, block_q5_0),
    'Q5_1': (7, 32, block_q5_1),
    'Q8_0': (8, 32, block_q8_0),
    'Q4_K': (12, 256, block_q4_k),
    'Q5_K': (13, 256, block_q5_k),
    'Q6_K': (14, 256, block_q6_k),
    'BF16': (30, 1, block_bf16),
}


def matrix(args, name, type_name, columns, rows, sigma):
    if columns % TYPES[type_name][1] != 0:
        type_name = 'Q8_0' if columns % 32 == 0 else 'F16'
    number, elements, block = TYPES[type_name]
    # A seed of its own for each tensor: it does not depend on the tensors before it.
    digest = hashlib.sha256(f'{args.seed} {name}'.encode()).digest()
    rng = random.Random(int.from_bytes(digest, 'little'))
    data = b''.join(block(rng, sigma) for _ in range(columns // elements * rows))
    return name, number, (columns, rows), data


def vector(name, values):
    return name, 0, (len(values),), struct.pack(f'<{len(values)}f', *values)


def norm(args, name, width=EMBEDDING):
    rng = random.Random(f'{args.seed} {name}')
    return vector(name, [0.8 + 0.4 * rng.random() for _ in range(width)])


def tensors(args):
    mixed = args.type == 'mixed'
    queries, keys = args.heads * args.head_dim, args.kv_heads * args.head_dim
    # Embeddings small against what the layers add: otherwise each token would predict itself.
    embedding = MIXED_EMBEDDING if mixed else args.type
    yield matrix(args, 'token_embd.weight', embedding, EMBEDDING, args.vocab, 0.06)
    if args.untied:
        output = MIXED_OUTPUT if mixed else args.type
        yield matrix(args, 'output.weight', output, EMBEDDING, args.vocab, 0.08)
    yield norm(args, 'output_norm.weight')
    if args.rope_factors:
        n = args.head_dim // 2
        yield vector('rope_freqs.weight', [1 + 7 * i / n for i in range(n)])
    for layer in range(args.layers):
        for name, columns, rows, gain in (
                ('attn_q', EMBEDDING, queries, 1.5),
                ('attn_k', EMBEDDING, keys, 1.0),
                ('attn_v', EMBEDDING, keys, 1.0),
                ('attn_output', queries, EMBEDDING, 0.7),
                ('ffn_gate', EMBEDDING, args.ffn, 1.0),
                ('ffn_up', EMBEDDING, args.ffn, 1.0),
                ('ffn_down', args.ffn, EMBEDDING, 0.7)):
            type_name = LAYER_TYPES[name][layer % 2] if mixed else args.type
            yield matrix(args, f'blk.{layer}.{name}.weight', type_name, columns, rows,
                         gain / columns ** 0.5)
        yield norm(args, f'blk.{layer}.attn_norm.weight')
        yield norm(args, f'blk.{layer}.ffn_norm.weight')
        if args.arch == 'gemma3':
            yield norm(args, f'blk.{layer}.attn_q_norm.weight', args.head_dim)
            yield norm(args, f'blk.{layer}.attn_k_norm.weight', args.head_dim)
            yield norm(args, f'blk.{layer}.post_attention_norm.weight')
            yield norm(args, f'blk.{layer}.post_ffw_norm.weight')


# ---- the file ----

def string(text):
    data = text.encode()
    return struct.pack('<Q', len(data)) + data


VALUES = {  # type: (number in the file, bytes of a value)
    'u32': (4, lambda x: struct.pack('<I', x)),
    'i32': (5, lambda x: struct.pack('<i', x)),
    'f32': (6, lambda x: struct.pack('<f', x)),
    'bool': (7, lambda x: struct.pack('<?', x)),
    'string': (8, string),
}


def key(name, type_name, value):
    number, pack = VALUES[type_name]
    if isinstance(value, list):
        return (string(name) + struct.pack('<IIQ', 9, number, len(value)) +
                b''.join(map(pack, value)))
    return string(name) + struct.pack('<I', number) + pack(value)


def byte_level_keys(args):
    tokens, token_types, merges = vocabulary(args.vocab)
    found = [
        key('tokenizer.ggml.model', 'string', 'gpt2'),
        key('tokenizer.ggml.pre', 'string', 'smollm'),
        key('tokenizer.ggml.tokens', 'string', tokens),
        key('tokenizer.ggml.token_type', 'i32', token_types),
        key('tokenizer.ggml.merges', 'string', merges),
        key('tokenizer.ggml.bos_token_id', 'u32', 0 if args.base_model else 1),
        key('tokenizer.ggml.eos_token_id', 'u32', 0 if args.base_model else 2),
        key('tokenizer.ggml.unknown_token_id', 'u32', 0),
        key('tokenizer.ggml.padding_token_id', 'u32', 2),
        key('tokenizer.ggml.add_space_prefix', 'bool', False),
        key('tokenizer.ggml.add_bos_token', 'bool', False),
    ]
    if not args.base_model:
        found.append(key('tokenizer.chat_template', 'string', CHATML))
    return found


def spm_keys(args):
    tokens, token_types, scores = spm_vocabulary(args.vocab)
    found = [
        key('tokenizer.ggml.model', 'string', 'llama'),
        key('tokenizer.ggml.pre', 'string', 'default'),
        key('tokenizer.ggml.tokens', 'string', tokens),
        key('tokenizer.ggml.scores', 'f32', scores),
        key('tokenizer.ggml.token_type', 'i32', token_types),
        key('tokenizer.ggml.bos_token_id', 'u32', 2),
        key('tokenizer.ggml.eos_token_id', 'u32', 1),
        key('tokenizer.ggml.unknown_token_id', 'u32', 3),
        key('tokenizer.ggml.padding_token_id', 'u32', 0),
        key('tokenizer.ggml.add_space_prefix', 'bool', False),
        key('tokenizer.ggml.add_bos_token', 'bool', True),
    ]
    if not args.base_model:
        found.append(key('tokenizer.chat_template', 'string', GEMMA))
    return found


def keys(args):
    arch = args.arch
    found = [
        key('general.architecture', 'string', arch),
        key('general.name', 'string', 'Quire tiny'),
        key(f'{arch}.block_count', 'u32', args.layers),
        key(f'{arch}.context_length', 'u32', 4096),
        key(f'{arch}.embedding_length', 'u32', EMBEDDING),
        key(f'{arch}.feed_forward_length', 'u32', args.ffn),
        key(f'{arch}.attention.head_count', 'u32', args.heads),
        key(f'{arch}.attention.head_count_kv', 'u32', args.kv_heads),
        key(f'{arch}.attention.key_length', 'u32', args.head_dim),
        key(f'{arch}.attention.value_length', 'u32', args.head_dim),
        key(f'{arch}.attention.layer_norm_rms_epsilon', 'f32', 1e-5),
        key(f'{arch}.rope.freq_base', 'f32', 1000000.0 if arch == 'gemma3' else 10000.0),
        key(f'{arch}.rope.dimension_count', 'u32', args.head_dim),
        key(f'{arch}.vocab_size', 'u32', args.vocab),
        key('general.quantization_version', 'u32', 2),
    ]
    if arch == 'gemma3':
        return found + [key('gemma3.attention.sliding_window', 'u32', WINDOW)] + spm_keys(args)
    return found + byte_level_keys(args)


def padding(size):
    return bytes(-size % 32)


def gguf(args):
    all_keys, all_tensors = keys(args), list(tensors(args))
    head = b'GGUF' + struct.pack('<IQQ', 3, len(all_tensors), len(all_keys)) + b''.join(all_keys)
    body = b''
    for name, number, dims, data in all_tensors:
        head += string(name) + struct.pack(f'<I{len(dims)}Q', len(dims), *dims)
        head += struct.pack('<IQ', number, len(body))
        body += data + padding(len(data))
    return head + padding(len(head)) + body


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', metavar='OUT.gguf')
    parser.add_argument('--arch', choices=['llama', 'gemma3'], default='llama')
    parser.add_argument('--type', choices=['mixed', *TYPES], default='mixed')
    parser.add_argument('--heads', type=int, default=4)
    parser.add_argument('--kv-heads', type=int, default=2)
    parser.add_argument('--head-dim', type=int, default=32)
    parser.add_argument('--layers', type=int, default=2)
    parser.add_argument('--vocab', type=int, default=384)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--untied', action='store_true', help='a separate output matrix')
    parser.add_argument('--base-model', action='store_true', help='no chat template')
    parser.add_argument('--rope-factors', action='store_true', help='a rope_freqs.weight tensor')
    parser.add_argument('--sha256', metavar='HEX', help='write only if the file has this hash')
    args = parser.parse_args()
    if args.kv_heads < 1 or args.heads < 1 or args.heads % args.kv_heads != 0:
        parser.error('--heads must be a multiple of --kv-heads')
    if args.head_dim < 2 or args.head_dim % 2 != 0:
        parser.error('--head-dim must be even')
    if args.layers < 1 or args.vocab < (264 if args.arch == 'gemma3' else 259):
        parser.error('at least 1 layer and a vocabulary of 259 (gemma3: 264)')
    # Another width than the embedding's finds transposed shapes; F32 would make the file large.
    args.ffn = 256 if args.type == 'F32' else 512
    return args


def main():
    args = arguments()
    data = gguf(args)
    found = hashlib.sha256(data).hexdigest()
    if args.sha256 not in (None, found):
        sys.exit(f'{args.out}: not written: its SHA-256 would be {found}, not {args.sha256}')
    with open(args.out, 'wb') as file:
        file.write(data)


if __name__ == '__main__':
    main()
