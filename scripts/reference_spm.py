# reference_spm.py - SentencePiece itself over a vocabulary of GGUF's kind "llama", for the goldens.
# SPDX-License-Identifier: Apache-2.0
"""Needs the packages `sentencepiece` and `protobuf`, and `gguf` for from_gguf."""
import re

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # as SentencePiece and GGUF number them
SPACE = '\u2581'
BPE = 2  # TrainerSpec.ModelType


class Tokenizer:
    """encode as `quire tokenize` should: plain text through SentencePiece, and on demand the texts
    of control tokens as those tokens. A file of GGUF writes user-defined tokens with spaces."""

    def __init__(self, tokens, scores, types, space_prefix):
        model = sentencepiece_model_pb2.ModelProto()
        for text, score, kind in zip(tokens, scores, types):
            piece = model.pieces.add()
            piece.piece = text.replace(' ', SPACE) if kind == USER_DEFINED else text
            piece.score, piece.type = score, kind
        if UNKNOWN not in types:  # SentencePiece insists on one; no text gives it with all bytes
            model.pieces.add(piece='<no unknown token>', type=UNKNOWN)
        model.trainer_spec.model_type = BPE
        model.trainer_spec.byte_fallback = BYTE in types
        model.normalizer_spec.name = 'identity'
        model.normalizer_spec.add_dummy_prefix = space_prefix
        model.normalizer_spec.remove_extra_whitespaces = False
        model.normalizer_spec.escape_whitespaces = True
        self.processor = sentencepiece.SentencePieceProcessor(
            model_proto=model.SerializeToString())
        # Of those that begin at one place the longest wins.
        self.controls = {t: i for i, (t, kind) in enumerate(zip(tokens, types)) if kind == CONTROL}
        longest_first = sorted(self.controls, key=lambda text: (-len(text), text))
        self.markers = re.compile('|'.join(map(re.escape, longest_first)) or r'(?!)')

    def encode(self, text, parse_special):
        if not parse_special:
            return self.processor.encode(text)
        ids, at = [], 0
        for match in self.markers.finditer(text):
            ids += self.processor.encode(text[at:match.start()]) + [self.controls[match[0]]]
            at = match.end()
        return ids + self.processor.encode(text[at:])


def from_gguf(path):
    import gguf
    fields = gguf.GGUFReader(path).fields

    def value(name, default=None):
        field = fields.get('tokenizer.ggml.' + name)
        return default if field is None else field.contents()
    return Tokenizer(value('tokens'), value('scores'), value('token_type'),
                     value('add_space_prefix', True))
