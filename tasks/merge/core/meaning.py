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
    """Two configurations. different: key -> (the base's value, the other's); base_holds: the same, where the base's holds."""

    different: Mapping[str, tuple[Any, Any]]
    base_holds: Mapping[str, tuple[Any, Any]]


def compare(base: Mapping[str, Any], other: Mapping[str, Any]) -> Compared:
    """What two configurations say differently; of configurations inside (`text_config`) by dotted keys."""
    if not _apart(base, other):
        return Compared({}, {})
    whole = all(_meaning(json.dumps(one, sort_keys=True)) for one in (base, other))
    ours, its = (meaning(one) if whole else one for one in (base, other))
    known = _known(str(base.get("model_type", "")))
    different, base_holds = {}, {}
    for key, values in _apart(ours, its).items():
        inside, _, last = key.rpartition(".")
        trainers = known is not None and key not in known and last not in _ABROAD and last not in OLD_ROPE
        if last in GENERATION or trainers or (last == _LONGER and _plain_positions(_inner(ours, inside))):
            base_holds[key] = values
        else:
            different[key] = values
    return Compared(different, base_holds)


def meaning(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration as transformers understands it; as it stands where that does not know the model's type or refuses the values."""
    text = json.dumps(config, sort_keys=True)
    found: dict[str, Any] = json.loads(_meaning(text) or text)
    return found


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with those inside it (`text_config`, `vision_config`) spread out under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inside = key.endswith("_config") and key not in _ABROAD and isinstance(value, Mapping)
        found |= {f"{key}.{name}": one for name, one in flat(value).items()} if inside else {key: value}
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
    one, other = flat(one), flat(other)
    keys = sorted(key for key in {*one, *other} if key.rpartition(".")[2] not in SILENT)
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _inner(config: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    """A configuration inside another, by its dotted key; the whole one for none."""
    for part in dotted.split(".") if dotted else ():
        config = config[part]
    return config


def _once(value: Any) -> Any:
    """Without `type` beside a `rope_type` that says the same, as transformers 4 wrote both."""
    if isinstance(value, list):
        return [_once(item) for item in value]
    if not isinstance(value, dict):
        return value
    twice = "type" in value and value["type"] == value.get("rope_type")
    return {key: _once(item) for key, item in value.items() if not (twice and key == "type")}


@lru_cache(maxsize=32)
def _meaning(text: str) -> str:
    """The meaning as JSON; empty where the class refuses the values."""
    config = json.loads(text)
    found = _class(str(config.get("model_type", "")))
    if found is None:
        return text
    try:
        said = found.from_dict({key: value for key, value in config.items() if key != "model_type"}).to_dict()
        return json.dumps(_once(said), default=str)
    except Exception:  # each class checks its values in its own way
        return ""


@lru_cache(maxsize=32)
def _known(model_type: str) -> frozenset[str] | None:
    """Keys that the model's configuration class has; None when there is no such class."""
    found = _class(model_type)
    return None if found is None else frozenset(flat(found().to_dict())) | {"model_type", "architectures", *OLD_ROPE}


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
