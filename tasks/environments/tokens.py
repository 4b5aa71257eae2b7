"""Environments as tokens: a closed vocabulary of whole words, and conversations over it written by a template as short as can be.

A conversation [(told, reply), ...] is `<user> told <agent> reply <end> <user> told ...`; trained are a reply's words and its `<end>`.
As text each word is followed by a blank, also the last one, and each special stands alone, so that ids and text are the same thing
twice: nothing in a text can be cut into words in two ways. What turns a conversation into ids here, and what the chat format of a
checkpoint over these words (`chat_format`) does, is the same, as a test proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.chat.local.format import WHOLE, ChatFormat
from tasks.contract.params import BadInput, brief, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.environments import Environment

PAD, USER, AGENT, END = SPECIALS = ("<pad>", "<user>", "<agent>", "<end>")
"""Ids 0 to 3: padding, what opens what is told and what is replied, and what ends a reply. Word i is id len(SPECIALS) + i."""
CONTEXT = 1024
"""Positions of a model over such words, tokens; ours: an episode of 24 turns of 40 words fits."""
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}{{- '<agent>' -}}{%- generation -%}{{- message.content + ' <end>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- '<user>' + (message.content + ' ' if message.content else '') -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<agent>' -}}{%- endif -%}"
)
"""The chat template. There is no system prompt and there are no tools: an environment tells all that is to be known."""


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


def tokenizer(words: Vocabulary) -> PreTrainedTokenizerBase:
    """The vocabulary as a tokenizer of transformers, with the chat template. It fails on a word that it does not know."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = {**{special: place for place, special in enumerate(SPECIALS)}, **{f"{word} ": words.ids(word)[0] for word in words.words}}
    level = Tokenizer(models.WordLevel(entries))
    level.pre_tokenizer = pre_tokenizers.Split(Regex(r"\S+ "), "isolated")
    level.decoder = decoders.Fuse()
    level.add_special_tokens([AddedToken(special, normalized=False, special=True) for special in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=level,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def known_words(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The vocabulary of a tokenizer that `tokenizer` made. BadInput for any other: its tokens are no words of environments."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    names = [text for text, _ in entries]
    words = names[len(SPECIALS) :]
    if tuple(names[: len(SPECIALS)]) != SPECIALS or any(not word.endswith(" ") for word in words):
        raise BadInput(
            "the model's tokenizer has no closed vocabulary of whole words, so rows of environments cannot be its rows. "
            "Build the model with `base.method: closed_vocabulary`."
        )
    return Vocabulary(tuple(word.removesuffix(" ") for word in words))


def chat_format() -> ChatFormat:
    """How a checkpoint over such words writes conversations: kept beside its tokenizer, as the format of every other is."""
    return ChatFormat(
        "words of environments",
        WHOLE,
        TEMPLATE,
        {"eos_token": END, "pad_token": PAD},
        ends=(END,),
        closing=" ",
        markers=SPECIALS,
    )
