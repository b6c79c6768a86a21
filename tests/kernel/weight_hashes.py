# weight_hashes.py - prints the table of test_weights.c, as the package gguf decodes it.
# SPDX-License-Identifier: Apache-2.0
"""python3 weight_hashes.py  (needs the packages gguf and numpy)

Makes ROWS rows of COLUMNS weights of each type from splitmix64, with every half-precision scale
made finite, decodes them with gguf.quants.dequantize and prints FNV-1a over the bytes of the f32
result. test_weights.c makes the same bytes and must get the same hash from every level.
"""

import gguf
import numpy as np

ROWS, COLUMNS = 5, 512
MASK = (1 << 64) - 1
# Byte offsets of the half-precision numbers of a block.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F16": [0], "BF16": [0], "F32": [2]}


def mix(state):
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def random_bytes(seed, count):
    out, state = bytearray(), seed
    while len(out) < count:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        out += mix(state).to_bytes(8, "little")
    return out[:count]


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


for name, halves in HALVES.items():
    kind = gguf.GGMLQuantizationType[name]
    elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    data = random_bytes(int(kind), ROWS * COLUMNS // elements * block_bytes)
    for block in range(0, len(data), block_bytes):
        for offset in halves:
            data[block + offset + 1] &= 0xBF  # the top bit of the exponent
    rows = np.frombuffer(bytes(data), dtype=np.uint8).reshape(ROWS, -1)
    if name == "F32":
        values = rows.view(np.float32)
    elif name == "F16":
        values = rows.view(np.float16).astype(np.float32)
    else:
        values = gguf.quants.dequantize(rows, kind)
    print(f"    {{QUIRE_W_{name}, 0x{fnv(values.astype('<f4').tobytes()):016x}u}},")
