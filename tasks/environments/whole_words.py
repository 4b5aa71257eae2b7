"""The vocabulary of environments as what a checkpoint keeps: a tokenizer of transformers, its chat template, and its chat format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.chat.local.format import WHOLE, ChatFormat
from tasks.contract.params import BadInput
from tasks.environments.tokens import END, PAD, SPECIALS, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 1024
"""Positions of a model over such words, tokens; ours: an episode of 24 turns of 40 words fits."""
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}{{- '<agent>' -}}{%- generation -%}{{- message.content + ' <end>' -}}{%- endgeneration -%}"
    "{%- elif message.role != 'system' -%}{{- '<user>' + (message.content + ' ' if message.content else '') -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<agent>' -}}{%- endif -%}"
)
"""The chat template. It writes no system prompt and no tools: an environment tells all that is to be known."""


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
