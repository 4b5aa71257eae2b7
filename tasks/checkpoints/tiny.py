"""The tiny Qwen3 of the quickstart: its tokenizer, made for a world's words, and its architecture."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tasks.chat.local.calls import Tools
from tasks.chat.local.kept import QWEN3_INSTRUCT
from tasks.chat.local.qwen3_instruct import CHAT_TEMPLATE, END, SPECIALS, TEXT, turn_texts
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PIECES = (
    r"(?:system|user|assistant)\n"  # a turn's header ends here, whatever comes next: encoding by turns equals encoding the whole
    r'|(?:\n?[\]}"]*(?:, )?[\[{]*"[a-z_]+": (?:\["|")?)+'  # JSON keys with what stands around them: fixed words of a world's API
    r"|~"  # words of a world's data stand alone: one token in prose and in JSON, so that it can be found again and copied
    r"|\d{1,2}"  # a hundred groups that every world uses often; of a thousand groups of three, many are too rare to be copied
    r"| ?(?!~)[a-z]+(?![a-z0-9_@-])(?: (?=[A-Z\d]|~))?|[a-z]+(?:_[a-z]+)+(?![a-z0-9_])"  # other words, names of tools
    r"|[a-z]+|[A-Z][A-Za-z]*"  # parts of identifiers, proper names
    r"|[^\sA-Za-z\d]+(?: [^\sA-Za-z\d]+)*(?:\n| (?=[A-Z\d]|~))?|\s"
)
"""Pre-tokens of the tiny tokenizer: long where a world's API fixes the words, and alike wherever a name or a value is copied.
`~` stands for any of the data's words."""
_WORD = r"(?<![A-Za-z_])[a-z]+(?![A-Za-z_0-9])"


def _pieces(words: Iterable[str]) -> str:
    known = "|".join(sorted(words, key=lambda word: (-len(word), word)))
    return PIECES.replace("~", rf"(?<![A-Za-z_])(?:{known})(?![A-Za-z_0-9])" if known else "(?!)")


def data_words(messages: Sequence[Message]) -> set[str]:
    """Lower-case words in the values that tools are given and answer with, errors apart: what an agent reads and repeats."""
    values: list[Any] = [call["function"]["arguments"] for message in messages for call in message.get("tool_calls") or ()]
    for message in messages:
        if message["role"] == "tool":
            with contextlib.suppress(ValueError):
                values.append(json.loads(message["content"]))
    found: set[str] = set()
    while values:
        value = values.pop()
        if isinstance(value, dict) and set(value) != {"error"}:
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str):
            found.update(re.findall(_WORD, value))
    return found


def language(system: str | None, messages: Sequence[Message], tools: Tools = ()) -> list[str]:
    """What a tokenizer learns from a conversation: the texts between the chat format's markers, roles included."""
    markers = "|".join(re.escape(token) for token in SPECIALS)
    return [
        text for text in re.split(markers, "".join(turn_texts(QWEN3_INSTRUCT.ready(system, messages, tools), prompt=False))) if text
    ]


def build_tokenizer(texts: Iterable[str], vocab: int, words: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of at most `vocab` entries on `texts`; deterministic in the texts and their order.

    words: lower-case words that keep no space to themselves, wherever they stand (`data_words`).

    Raises ValueError when `vocab` cannot hold the 256 bytes and the special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab < 256 + len(SPECIALS):
        raise ValueError(f"a byte-level vocabulary needs at least {256 + len(SPECIALS)} entries, not {vocab}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_pieces(words)), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False, min_frequency=2
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=TEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


CONTEXT = 4096
"""Positions of the tiny model, tokens: enough for schemas, policy and a long conversation."""


def sizes(vocabulary: int, layers: int, width: int, heads: int) -> dict[str, Any]:
    """What the tiny model's config.json says of its shape."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": -(-8 * width // 96) * 32,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
    }


def tiny_qwen3(tokenizer: PreTrainedTokenizerBase, layers: int, width: int, heads: int) -> PreTrainedModel:
    """A Qwen3 with random weights: heads of width / heads, MLP of 8/3 width (rounded up to 32), tied embeddings.

    The weights come from the global generator: seed it first.
    """
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **sizes(len(tokenizer), layers, width, heads),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model
