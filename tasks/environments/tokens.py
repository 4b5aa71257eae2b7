"""Environments as tokens: a closed vocabulary of whole words, and conversations over it written by a template as short as can be.

A conversation [(told, reply), ...] is `<user> told <agent> reply <end> <user> told ...`; trained are a reply's words and its `<end>`.
As text each word is followed by a blank, also the last one, and each special stands alone, so that ids and text are the same thing
twice: nothing in a text can be cut into words in two ways. What turns a conversation into ids here, and what the chat format of a
checkpoint over these words (`whole_words.py`) does, is the same, as a test proves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contract.params import BadInput, brief, nearest

if TYPE_CHECKING:
    from tasks.environments import Environment

PAD, USER, AGENT, END = SPECIALS = ("<pad>", "<user>", "<agent>", "<end>")
"""Ids 0 to 3: padding, what opens what is told and what is replied, and what ends a reply. Word i is id len(SPECIALS) + i."""
WORDS = "words.json"
"""The file beside rows of tokens that says of which vocabulary their ids are."""


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their ids. BadInput for one that stands twice, is empty, holds a blank or is one of SPECIALS."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if wrong := [word for word in self.words if word.split() != [word] or word in SPECIALS]:
            raise BadInput(
                f"the word {wrong[0]!r} cannot be one token. Allowed: texts without blanks that are not {', '.join(SPECIALS)}."
            )
        if len(self._ids) != len(self.words):
            twice = next(word for word in self.words if self.words.count(word) > 1)
            raise BadInput(f"the word {twice!r} stands twice in a vocabulary, so its id would not be known")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: len(SPECIALS) + place for place, word in enumerate(self.words)}

    def __len__(self) -> int:
        """How many ids there are."""
        return len(SPECIALS) + len(self.words)

    def ids(self, text: str) -> list[int]:
        """The words of a text, parted by blanks, as ids. BadInput names a word that is not in the vocabulary."""
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            word = str(error.args[0])
            raise BadInput(
                f"the word {brief(word)} is not in the vocabulary of {len(self.words)} words.{nearest(word, self.words)}"
            ) from None

    def text(self, ids: Iterable[int]) -> str:
        """Ids as words, parted by blanks, specials among them. BadInput for a number that is no id."""
        known = (*SPECIALS, *self.words)
        found = list(ids)
        if wrong := [one for one in found if not 0 <= one < len(known)]:
            raise BadInput(f"{wrong[0]} is no id of a vocabulary of {len(known)} tokens")
        return " ".join(known[one] for one in found)

    def conversation(self, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[bool]]:
        """(ids, trained) of a conversation of (told, reply), both of the same length. BadInput for a word that is not known, and for a
        reply without words, which no reader of conversations takes for a turn."""
        ids: list[int] = []
        trained: list[bool] = []
        user, agent, end = SPECIALS.index(USER), SPECIALS.index(AGENT), SPECIALS.index(END)
        for told, reply in turns:
            if not reply.split():
                raise BadInput(f"the reply to {brief(told)} has no word")
            read, written = [user, *self.ids(told), agent], [*self.ids(reply), end]
            ids += read + written
            trained += [False] * len(read) + [True] * len(written)
        return ids, trained


def vocabulary(environments: Mapping[str, Environment]) -> Vocabulary:
    """The words of environments by the order of their names, a word of several once: the same word is the same token in all of them."""
    return Vocabulary(tuple(dict.fromkeys(word for name in sorted(environments) for word in environments[name].words)))


def write_words(words: Vocabulary, folder: Path) -> None:
    """Keep a vocabulary beside rows."""
    (folder / WORDS).write_text(json.dumps(words.words, ensure_ascii=False) + "\n", encoding="utf-8")


def read_words(folder: Path) -> Vocabulary:
    """The vocabulary that `write_words` kept. BadInput where there is none."""
    try:
        return Vocabulary(tuple(json.loads((folder / WORDS).read_text(encoding="utf-8"))))
    except (FileNotFoundError, ValueError):
        raise BadInput(
            f"{folder / WORDS}: no list of words, so the rows' ids mean nothing. Run the step that made the rows again."
        ) from None


def translation(rows: Vocabulary, model: Vocabulary, used: Iterable[int]) -> dict[int, int]:
    """id of the rows' vocabulary -> the model's, of those that are used. BadInput names the words that the model does not know."""
    there = {word: place for place, word in enumerate((*SPECIALS, *model.words))}
    known = (*SPECIALS, *rows.words)
    words = {one: known[one] for one in sorted(used)}
    if missing := [word for word in words.values() if word not in there]:
        raise BadInput(
            f"the model does not know {len(missing)} of the {len(words)} words in the rows: {', '.join(missing[:5])}. Build it over "
            "the environments of the rows (worlds.environments)."
        )
    return {one: there[word] for one, word in words.items()}
