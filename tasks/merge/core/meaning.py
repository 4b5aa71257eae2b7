"""What the files beside the weights mean. Checkpoints of one family come from different releases and trainers, which say the same in
other words: a configuration is compared as the transformers library understands it (defaults filled in, `rope_theta` as part of
`rope_parameters`, `layer_types` spelled out), a tokenizer as the tokenizers library writes it. Both are imported only where two files
differ as they stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

SILENT = frozenset(
    (
        "transformers_version",
        "_name_or_path",
        "dtype",
        "torch_dtype",
        "use_cache",
        "_attn_implementation",
        "attn_implementation",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "id2label",
        "label2id",
        "problem_type",
        "initializer_range",
        "attention_dropout",
        "hidden_dropout",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "router_aux_loss_coef",
        "chunk_size_feed_forward",
    )
)
"""Keys that do not change what a model computes from its weights when it is asked (some matter while it is trained)."""
GENERATION = frozenset(("bos_token_id", "eos_token_id", "pad_token_id"))
"""Keys that say where a text begins and ends: the base's hold, unless the recipe says otherwise, and the difference is told."""
_LONGER = "max_position_embeddings"
_ABROAD = frozenset(("quantization_config", "auto_map"))
"""Keys that no configuration class has by default, and that are no trainer's notes."""
OLD_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor")
"""What transformers 4 wrote for `rope_parameters`."""


@dataclass(frozen=True)
class Compared:
    """Two configurations. different: key -> (the base's value, the other's); told: the same, for keys in which the base's holds."""

    different: Mapping[str, tuple[Any, Any]]
    told: Mapping[str, tuple[Any, Any]]


def compare(base: Mapping[str, Any], other: Mapping[str, Any]) -> Compared:
    """What two configurations say differently."""
    if not _apart(base, other):
        return Compared({}, {})
    ours, its = meaning(base), meaning(other)
    known = _known(str(base.get("model_type", "")))
    different, told = {}, {}
    for key, values in _apart(ours, its).items():
        trainers = known is not None and key not in known and key not in _ABROAD
        if key in GENERATION or trainers or (key == _LONGER and _plain_positions(ours)):
            told[key] = values
        else:
            different[key] = values
    return Compared(different, told)


def meaning(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration as transformers understands it; as it stands where that does not know the model's type or refuses the values."""
    found: dict[str, Any] = json.loads(_meaning(json.dumps(config, sort_keys=True)))
    return found


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output layer is the embedding under another name; where the file does not say, the model's default counts."""
    return bool(config["tie_word_embeddings"] if "tie_word_embeddings" in config else meaning(config).get("tie_word_embeddings"))


def same_template(one: str, other: str) -> bool:
    """Whether two chat templates render alike: Jinja reads all line ends as one and drops the last of them."""
    return _lines(one) == _lines(other)


@lru_cache(maxsize=32)
def tokenizer(text: str) -> Mapping[str, Any]:
    """A tokenizer.json as the tokenizers library writes it today; as it stands where that cannot read it."""
    from tokenizers import Tokenizer

    try:
        found: dict[str, Any] = json.loads(Tokenizer.from_str(text).to_str())
    except Exception:  # the library raises nothing narrower; what it cannot read is compared as it stands
        found = json.loads(text)
    return found


def _lines(template: str) -> str:
    text = template.replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n")


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = sorted({*one, *other} - SILENT)
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


@lru_cache(maxsize=32)
def _meaning(text: str) -> str:
    config = json.loads(text)
    found = _class(str(config.get("model_type", "")))
    if found is None:
        return text
    try:
        return json.dumps(found.from_dict({key: value for key, value in config.items() if key != "model_type"}).to_dict(), default=str)
    except Exception:  # each class checks its values in its own way
        return text


@lru_cache(maxsize=32)
def _known(model_type: str) -> frozenset[str] | None:
    """Keys that the model's configuration class has; None when there is no such class."""
    found = _class(model_type)
    return None if found is None else frozenset(found().to_dict()) | {"model_type", "architectures", *OLD_ROPE}


def _class(model_type: str) -> Any:
    if not model_type:
        return None
    from transformers import AutoConfig

    try:
        return type(AutoConfig.for_model(model_type))
    except ValueError:  # not a type that this release knows
        return None


def _plain_positions(config: Mapping[str, Any]) -> bool:
    """Whether the longest context is a limit alone: rotary positions that are not stretched by it."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return False
    each = [one for one in rope.values() if isinstance(one, Mapping)] or [rope]
    return all(one.get("rope_type", "default") == "default" for one in each)
