"""Small tokenizers for chat templates: the special tokens that a template's text names, and a vocabulary learned from conversations."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.samples import TOOLS, samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

SPECIALS = re.compile(
    r"<\|[^|<>\s'\"]{1,40}\|>|<[｜][^<>\s'\"]{1,40}[｜]>|<(?:start|end)_of_\w+>|</?think>|</?tool_(?:call|response)>|<\|\w+>|<\w+\|>"
    r'|<\|"\|>|</?arg_(?:key|value)>|</s>'
)
BEGIN, END, PAD = "<begin>", "<end>", "<pad>"


def originals() -> dict[str, str]:
    """Name -> text of the chat templates in TRL's wheel, its training variants apart."""
    spec = find_spec("trl")
    assert spec is not None
    folder = Path(next(iter(spec.submodule_search_locations or ()))) / "chat_templates"
    return {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.jinja")) if not path.stem.endswith("_training")}


@lru_cache(maxsize=1)
def _vocabulary() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [str(TOOLS), *(str(talk.messages) for talk in samples(100, 9, (), 0, True))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=sorted(alphabet), show_progress=False))
    return str(bpe.to_str())


def backend() -> Tokenizer:
    """The tokenizer without special tokens."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_vocabulary())


def small_tokenizer(template: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer for a chat template, with every special token that the template names."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    made = backend()
    names = sorted({BEGIN, END, PAD, *SPECIALS.findall(template or "")})
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BEGIN, eos_token=END, pad_token=PAD, chat_template=template)
