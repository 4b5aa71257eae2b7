"""Texts as token ids and back, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens. ids: all of them; mask: 1 where the assistant must produce the token, else 0 (same
    length)."""

    ids: list[int]
    mask: list[int]

    @staticmethod
    def of(pieces: Sequence[list[int]]) -> Rendered:
        """From the ids read and written by turns: [read, turn, read, turn ...]."""
        ids = [token for piece in pieces for token in piece]
        return Rendered(ids, [index % 2 for index, piece in enumerate(pieces) for _ in piece])


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens added. The tokenizer's own batch call: transformers' wrapper costs more than the
    encoding of short texts."""
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[list[int]]) -> list[str]:
    """The text of each list of ids, special tokens included."""
    texts: list[str] = tokenizer.backend_tokenizer.decode_batch(list(ids), skip_special_tokens=False)
    return texts
