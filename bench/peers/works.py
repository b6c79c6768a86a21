# works.py - the sizes and token lists of the works of bench/peers, for the programs in Python.
# SPDX-License-Identifier: Apache-2.0
"""The sizes and token lists of the works; quire_peer.c and llama_seq.c repeat them in C."""

BLOCK = 16  # positions of a block
SEQS = 64  # prompts taken at once, and sequences of a step
PROMPT = 2048  # tokens of such a prompt
LONG = 100_000  # tokens of the prompt that is found or forked
REQUESTS = 2000  # short requests of a run
VOCAB = 32000


def prompt(sequence, count):
    """Tokens of one list. Lists of different sequences differ from their first block on."""
    return [(i * 2654435761 + sequence * 40503 + 12345) % (1 << 32) % VOCAB for i in range(count)]


def step_token(sequence, step):
    """The token that a sequence gets in a step."""
    return (sequence * 31 + step * 17 + 7) % VOCAB
