"""From rows of tokens, as environments leave them, to proven rows: the room's second door beside marked conversations (`data.py`).

Their ids were made directly, without a text, so the mask proof takes them apart again: the words of each conversation are rendered by
the checkpoint's own chat format, and what comes out has to be the row. Texts of other forms have no turns, and nothing to prove.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chat.local.kept import chat_of
from tasks.chat.local.tokens import Rendered
from tasks.chat.mask_proof import Example, prove_masks
from tasks.contract.params import StageFailed
from tasks.environments import tokens, whole_words
from tasks.sft.core.data import IGNORED, Data, Row, weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.contract.client import Message

FILE = "rows.parquet"
NOTHING = "no trained token"
"""Reason for which rows are left out, beside their length."""


def load_token_rows(
    folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, row_weight: Callable[[Mapping[str, Any]], float]
) -> Data:
    """The rows of train and validation in the model's ids; the mask proof has held for each that is a conversation.

    row_weight: a factor of the weight that the row has in the file; it is given the row (`schemas.TOKEN_ROW`). Every row of the file is
    accounted for: of the test split, without a trained token, longer than max_length, or used. Raises BadInput for words that the
    model does not know, StageFailed for a row whose mask or weight makes no sense, MaskError for one that is not what a server reads.
    """
    from tasks.contract.schemas import TOKEN_ROW
    from tasks.contract.tables import read_table

    rows = [row for row in read_table(folder / FILE, TOKEN_ROW).to_pylist() if row["split"] in ("train", "validation")]
    model = whole_words.known_words(tokenizer)
    there = tokens.translation(tokens.read_words(folder), model, {one for row in rows for one in row["ids"]})
    data = Data()
    for row in rows:
        row["ids"] = [there[one] for one in row["ids"]]
        _take(data, row, max_length, row_weight)
    talks = [row for row in rows if row["turns"]]
    data.proven_turns = prove_masks(chat_of(tokenizer), tokenizer, (_example(row, model) for row in talks))
    return data


def _take(data: Data, row: Mapping[str, Any], max_length: int, row_weight: Callable[[Mapping[str, Any]], float]) -> None:
    """Add a row to its split, or to what was left out."""
    ids, mask, name = row["ids"], row["mask"], row["row_id"]
    if len(ids) != len(mask) or (mask and mask[0]):
        raise StageFailed(
            f"sft: row {name}: {len(ids)} ids, {len(mask)} values of its mask; as many are wanted, the first not trained."
        )
    end = max((place + 1 for place, trained in enumerate(mask) if trained), default=0)
    data.offer(row["split"], sum(mask))
    data.longest = max(data.longest, end)
    if reason := NOTHING if not end else f"{end} tokens" if end > max_length else "":
        data.dropped.append((name, reason))
        return
    labels = [token if trained else IGNORED for token, trained in zip(ids[:end], mask, strict=False)]
    ready = Row(name, ids[:end], labels, weight_of(row["weight"], row_weight(row), name), _about(row))
    (data.train if row["split"] == "train" else data.validation).append(ready)


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a method that groups rows is told: the same names as of conversations (`data.ABOUT`). A row is about its episode; its score
    is what that brought."""
    problem = f"{row['environment']}/{row['seed']}"
    score = math.nan if row["return"] is None else row["return"]
    own = {"problem_id": problem, "world": row["environment"], "family": row["family"], "lineage": [problem], "tags": [row["part"]]}
    return {**own, "trial": 0, "score": score}


def _example(row: Mapping[str, Any], words: tokens.Vocabulary) -> Example:
    """A row that is a conversation, with the messages that its words are."""
    messages: list[Message] = []
    for turn in _turns(row["ids"]):
        messages += [{"role": role, "content": words.text(ids)} for role, ids in zip(("user", "assistant"), turn, strict=True)]
    return Example(row["row_id"], None, messages, [Rendered(row["ids"], [int(one) for one in row["mask"]])])


def _turns(ids: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """(told, replied) of each turn of a conversation: what stands between the specials."""
    user, agent, end = (tokens.SPECIALS.index(one) for one in (tokens.USER, tokens.AGENT, tokens.END))
    told: list[int] = []
    now: list[int] = []
    for one in ids:
        if one == user:
            now = []
        elif one == agent:
            told, now = now, []
        elif one == end:
            yield told, now
        else:
            now.append(one)
