"""From marked rows to batches of proven tokens. Nothing is cut: what does not fit is left out, counted and named."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chat.local.format import BY_TURN, ChatFormat
from tasks.chat.local.kept import chat_of
from tasks.chat.mask_proof import Example, prove_masks
from tasks.contract.client import Message
from tasks.contract.params import StageFailed
from tasks.contract.rows import message_of
from tasks.contract.trajectory import ENDED
from tasks.training import packs
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.system_prompt import system_message, tools_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOO_LONG, UNFIT = "too long", "the checkpoint's chat format does not hold"
"""Reasons for which rows are left out."""
IGNORED = -100
"""The label of a token that is not trained, torch's own convention."""
BUCKET = 32
"""Batches' worth of rows sorted by length together; ours: little padding, and rows still meet at random."""


WHOLE = (*ENDED, "max_steps", "tool_error")
"""How conversations stop whose last turn is whole, as it is where the human ended them (human_...). By any other stop it was cut,
cannot be read or never came: with an end behind it, half a turn would be learned as a whole one."""


ABOUT = ("problem_id", "world", "family", "lineage", "tags", "trial", "score")
"""Columns of a dataset row that stay with its tokens."""


@dataclass(frozen=True)
class Row:
    """One training row. ids: tokens up to its last trained one; labels: the same, IGNORED where not trained; weight >= 0. about: what
    ABOUT names of its dataset row, for a method that groups rows (by site in meta-learning, by source in a schedule)."""

    name: str
    ids: list[int]
    labels: list[int]
    weight: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> int:
        """How many of its tokens train."""
        return sum(label != IGNORED for label in self.labels)


@dataclass
class Data:
    """The rows of both splits, and why each other kept row was left out (name, reason)."""

    train: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    proven_turns: int = 0
    offered: dict[str, tuple[int, int]] = field(default_factory=lambda: {"train": (0, 0), "validation": (0, 0)})
    """split -> kept rows and their trained tokens, before any was left out"""
    longest: int = 0
    """tokens of the longest kept row, up to its last trained one"""

    def offer(self, split: str, tokens: int) -> None:
        """Count a kept row of `tokens` trained ones, whether or not it can be used."""
        rows, before = self.offered[split]
        self.offered[split] = (rows + 1, before + tokens)

    def dropped_by(self) -> dict[str, int]:
        """How many rows were left out for each reason."""
        kinds = Counter(TOO_LONG if reason.endswith(" tokens") else reason for _, reason in self.dropped)
        return dict(sorted(kinds.items()))


def load_data(
    path: Path,
    worlds: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Mapping[str, str],
    max_length: int,
    row_weight: Callable[[Mapping[str, Any]], float],
    unfiltered: random.Random | None = None,
) -> Data:
    """The kept rows of train and validation as tokens; the mask proof has held for each of them, whichever of its turns are trained.

    row_weight: a factor of the weight that the row has in the file. unfiltered: draws as many train rows from all of them instead, kept
    or not (the control; validation stays as it is).

    Every row of the file is accounted for: not marked to keep, of the test split, ended by a turn that is none, without a trained turn,
    longer than max_length tokens, or used. Raises StageFailed naming the row whose weight or trained turns make no sense, MaskError
    naming the row whose tokens are not what a server would read and the assistant produce.
    """
    from tasks.contract.schemas import DATASET
    from tasks.contract.tables import read_table

    chat = chat_of(tokenizer)
    prompts = {name: (system_message(world, prompt), tools_of(world, prompt)) for name, world in load_all(worlds).items()}
    rows = read_table(path, DATASET).drop_columns(["turns"]).to_pylist()
    used = [row for row in rows if row["keep"] and row["split"] in ("train", "validation")]
    if unfiltered is not None:
        everything = [row for row in rows if row["split"] == "train"]
        train = unfiltered.sample(everything, sum(row["split"] == "train" for row in used))
        used = train + [row for row in used if row["split"] == "validation"]
    data = Data()
    talks = {id(row): [message_of(message) for message in row["messages"]] for row in used}
    for row in used:
        if reason := _unusable(row, talks[id(row)], chat):
            data.offer(row["split"], 0)
            data.dropped.append((row["traj_id"], reason))
            del talks[id(row)]
    used = [row for row in used if id(row) in talks]
    rendered = chat.rows(tokenizer, [(prompts[row["world"]][0], talks[id(row)], prompts[row["world"]][1]) for row in used])
    examples = [
        Example(row["traj_id"], prompts[row["world"]][0], talks[id(row)], rows, prompts[row["world"]][1])
        for row, rows in zip(used, rendered, strict=True)
    ]
    data.proven_turns = prove_masks(chat, tokenizer, examples)
    for row, rows in zip(used, rendered, strict=True):
        masks = _learned([tokens.mask for tokens in rows], row["trained_turns"], row["traj_id"])
        for turn, (tokens, mask) in enumerate(zip(rows, masks, strict=True)):
            name = row["traj_id"] if chat.form != BY_TURN else f"{row['traj_id']}, turn {turn + 1}"
            end = max((index + 1 for index, trained in enumerate(mask) if trained), default=0)
            data.offer(row["split"], sum(mask))
            data.longest = max(data.longest, end)
            if reason := "no trained turn" if not end else f"{end} tokens" if end > max_length else "":
                data.dropped.append((name, reason))
                continue
            labels = [token if trained else IGNORED for token, trained in zip(tokens.ids, mask, strict=True)]
            weight = weight_of(row["weight"], row_weight(row), row["traj_id"])
            ready = Row(name, tokens.ids[:end], labels[:end], weight, {key: row[key] for key in ABOUT})
            (data.train if row["split"] == "train" else data.validation).append(ready)
    return data


def _unusable(row: Mapping[str, Any], talk: Sequence[Message], chat: ChatFormat) -> str:
    """Why a kept row cannot be trained on, whatever its tokens are, or ""."""
    if not _whole(row):
        return "its last turn was cut or cannot be read"
    if why := next(filter(None, (chat.unfit(message) for message in talk if message["role"] == "assistant")), ""):
        return f"{UNFIT} {why}"
    return "" if any(message["role"] == "assistant" for message in talk) else "no trained turn"


def _learned(masks: Sequence[Sequence[int]], turns: Sequence[bool] | None, name: str) -> Sequence[Sequence[int]]:
    """The masks of a conversation's rows with those of the assistant's turns cleared that are not to be learned. turns: one value a
    turn; None: all of them."""
    if turns is None:
        return masks
    spoken = sum(bool(own and not (index and mask[index - 1])) for mask in masks for index, own in enumerate(mask))
    if len(turns) != spoken:
        raise StageFailed(
            f"sft: row {name}: trained_turns has {len(turns)} values for {spoken} turns of the assistant. "
            "Allowed: one for each, or null for all."
        )
    learned, turn = [], -1
    for mask in masks:
        kept = []
        for index, own in enumerate(mask):
            turn += int(own and not (index and mask[index - 1]))
            kept.append(int(own and turns[turn]))
        learned.append(kept)
    return learned


def weight_of(in_dataset: float | None, factor: float, name: str) -> float:
    """A row's weight: that of the file times the method's factor. StageFailed naming the row for one that makes no sense."""
    weight = math.nan if in_dataset is None else in_dataset * factor
    if not (math.isfinite(weight) and weight >= 0):
        raise StageFailed(
            f"sft: row {name}: its weight is {in_dataset} in the dataset, times {factor:g} by the method. "
            "Allowed: finite and at least 0."
        )
    return weight


def _whole(row: Mapping[str, Any]) -> bool:
    return row["stop"] in WHOLE or row["stop"].startswith("human_")


def batches(rows: Sequence[Row], tokens: int, rng: random.Random | None, packing: packs.Packing = "none") -> list[list[int]]:
    """Indices of `rows` in batches of at most `tokens` tokens, padding included; a longer row is a batch of its own.

    rng shuffles rows, then batches, with rows of like length together; None keeps them sorted by length (for validation). With
    packing: shared_prompt a batch is of one world, and its tokens are those of its pack.
    """
    if packing == "shared_prompt":
        return _packed_batches(rows, tokens, rng)
    order = list(range(len(rows)))
    if rng is not None:
        rng.shuffle(order)
    mean = max(1, sum(len(row.ids) for row in rows) // max(1, len(rows)))
    window = len(order) if rng is None else max(1, BUCKET * tokens // mean)
    made: list[list[int]] = []
    for start in range(0, len(order), max(1, window)):
        batch: list[int] = []
        for index in sorted(order[start : start + window], key=lambda index: len(rows[index].ids)):
            if batch and (len(batch) + 1) * len(rows[index].ids) > tokens:
                made.append(batch)
                batch = []
            batch.append(index)
        made.append(batch)
    if rng is not None:
        rng.shuffle(made)
    return made


def shareable(labels: Sequence[int]) -> int:
    """How many first tokens of a row a pack may have once for several: fewer than come before the first trained one (`packs.split`)."""
    return max(0, next(at for at, label in enumerate(labels) if label != IGNORED) - 1)


def _packed_batches(rows: Sequence[Row], tokens: int, rng: random.Random | None) -> list[list[int]]:
    """Indices of `rows` in shuffled batches whose packs have at most `tokens` tokens: rows of one world, whose system prompt counts
    once. A longer row is a batch of its own."""
    rng, order = rng or random.Random(0), list(range(len(rows)))
    rng.shuffle(order)
    worlds: dict[str, list[int]] = {}
    for index in order:
        worlds.setdefault(str(rows[index].about.get("world")), []).append(index)
    made: list[list[int]] = []
    for some in worlds.values():
        free = [shareable(rows[index].labels) for index in some]
        packs_of_world = packs.split([rows[index].ids for index in some], free, tokens, "shared_prompt", sort=False)
        made += [[some[at] for at in pack.rows] for pack in packs_of_world]
    rng.shuffle(made)
    return made


def collate(rows: Sequence[Row], pad: int) -> dict[str, Any]:
    """A batch as tensors: input_ids (b, t) padded on the right with `pad`, labels (b, t), row_weights (b,).

    No attention mask: attention is causal, so no token that counts can see the padding to its right.
    """
    import torch

    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    return {"input_ids": ids, "labels": labels, "row_weights": torch.tensor([row.weight for row in rows])}
