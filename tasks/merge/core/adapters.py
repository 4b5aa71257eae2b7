"""LoRA adapters as experts: their change of a matrix is scaling x B A, in weight space, made block by block where it is wanted.

Keys, scaling and patterns as PEFT saves them (peft.tuners.lora): alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA; a pattern's
key is a module's name or the end of it. Merging A and B on their own is something else (the product of sums is not the sum of
products) and is not offered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.checkpoints.adapters import CONFIG, WEIGHTS, Base, base_of, weights_of
from tasks.contract.params import BadInput, brief, is_folder
from tasks.merge.core.headers import (
    Array,
    Checkpoint,
    Mapped,
    Spec,
    narrow,
    read,
    read_header,
    read_json,
    read_template,
    read_tokenizer,
    widen,
)
from tasks.merge.core.meaning import is_tied
from tasks.merge.core.tensors import Full, Source, Stored

HEAD = "lm_head.weight"
"""the output layer"""
_PREFIX = "base_model.model."
_KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?$")
_UNKNOWN = (
    "use_dora",
    "lora_bias",
    "layer_replication",
    "use_qalora",
    "megatron_config",
    "target_parameters",
    "arrow_config",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
)
"""Variants whose change is not scaling x B A of a stored matrix (PEFT 0.21, LoraConfig)."""
_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Beginnings that leave the base as it is. The others (PiSSA, CorDA, OLoRA, LoftQ, LoRA-GA) take the first B A out of it, so
that A and B as saved belong to a base that is stored nowhere."""


@dataclass(frozen=True)
class LowRank:
    """scaling x B A: left [rows, r], right [r, columns], float32."""

    left: Array
    right: Array
    scaling: float

    def change(self, where: slice, base: Array) -> Array:
        """The adapter's change of these flat entries, float32, in a new array; it does not look at the base."""
        columns = self.right.shape[1]
        start, stop, step = where.indices(len(self.left) * columns)
        if step == 1 and start % columns == 0 and stop % columns == 0:
            product: Array = self.left[start // columns : stop // columns] @ self.right
            return (product * np.float32(self.scaling)).reshape(base.shape)
        flat = np.arange(start, stop, step)
        picked = (self.left[flat // columns] * self.right.T[flat % columns]).sum(axis=1, dtype=np.float32)
        return np.asarray(picked * np.float32(self.scaling), dtype=np.float32)

    def ahead(self) -> None:
        """Both factors are in memory."""


class Unchanged:
    """A tensor that the adapter leaves alone."""

    def change(self, where: slice, base: Array) -> Array:
        """Zeros: this expert leaves the tensor as the base has it."""
        return np.zeros_like(base)

    def ahead(self) -> None:
        """There is nothing to read."""


@dataclass(frozen=True)
class Adapter:
    """An expert in an adapter folder; tokenizer and template are empty where the folder has none."""

    label: str
    folder: Path
    matrices: Mapping[str, LowRank]
    replaced: Mapping[str, Spec]
    tokenizer: Mapping[str, Any]
    template: str

    def source(self, name: str) -> Source:
        """The change of one of the base's tensors."""
        if name in self.replaced:
            return Full(Stored(Mapped(self.replaced[name]), self.replaced[name].dtype))
        return self.matrices.get(name) or Unchanged()


def open_adapter(label: str, folder: Path, base: Checkpoint, called: Collection[str]) -> Adapter:
    """Read an adapter folder and fit it to the base. `called`: the names by which the user says that it may call the base."""
    config = read_json(folder / CONFIG) or {}
    if config.get("peft_type") != "LORA":
        raise BadInput(f"{label}: {folder}: peft_type is {config.get('peft_type')!r}; only LORA adapters are merged")
    for key in _UNKNOWN:
        if config.get(key):
            raise BadInput(f"{label}: {folder / CONFIG}: {key} is set; merge this adapter into its base with PEFT first, and give that")
    if (start := config.get("init_lora_weights", True)) not in _STARTS:
        raise BadInput(
            f"{label}: {folder / CONFIG}: init_lora_weights is {start!r}, which changed the base before training; merge this adapter "
            "into its base with PEFT first, or save it with path_initial_model_for_weight_conversion"
        )
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{label}: {folder} has no {WEIGHTS}; only safetensors are read, pickles are not")
    if trained := base_of(folder):
        _check_named(label, trained, base)
    else:
        _check_base(label, folder, str(config.get("base_model_name_or_path") or ""), base, called)
    sides: dict[tuple[str, str], Spec] = {}
    embeddings: set[str] = set()
    replaced: dict[str, Spec] = {}
    for spec in read_header(folder / WEIGHTS):
        name = spec.name.removeprefix(_PREFIX).replace(".base_layer.", ".")
        if found := _KEY.match(name):
            sides[found["module"], found["side"]] = spec
            embeddings |= {found["module"]} if found["embedding"] else set()
        else:
            replaced[name] = spec
    matrices = {}
    for module in sorted({module for module, _ in sides}):
        if (module, "A") not in sides or (module, "B") not in sides:
            raise BadInput(f"{label}: {folder / WEIGHTS}: {module} has only one of lora_A and lora_B")
        flip = module in embeddings or bool(config.get("fan_in_fan_out"))
        matrices[f"{module}.weight"] = _low_rank(label, module, sides[module, "A"], sides[module, "B"], config, flip)
    _check_shapes(label, base, matrices, replaced)
    for name in sorted(matrices.keys() & replaced.keys()):
        _check_frozen(label, base, replaced.pop(name))
    return Adapter(label, folder, matrices, replaced, read_tokenizer(folder), read_template(folder))


def _low_rank(label: str, module: str, a: Spec, b: Spec, config: Mapping[str, Any], flip: bool) -> LowRank:
    rank = _by_pattern(label, config.get("rank_pattern"), module, config.get("r"))
    alpha = _by_pattern(label, config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise BadInput(f"{label}: {module}: A {list(a.shape)} and B {list(b.shape)} cannot be multiplied as B A")
    if not isinstance(alpha, (int, float)):
        raise BadInput(f"{label}: {CONFIG} says lora_alpha = {alpha!r} for {module}: allowed is a number")
    if rank != a.shape[0] or not rank:
        raise BadInput(f"{label}: {module} has rank {a.shape[0]}, its {CONFIG} says {rank}: the two do not belong together")
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    down, up = (widen(read(spec), spec.dtype) for spec in (a, b))
    for side, values in (("A", down), ("B", up)):
        if not np.isfinite(values).all():
            raise BadInput(f"{label}: tensor {module!r}: lora_{side} holds NaN or infinity")
    return LowRank(np.ascontiguousarray(down.T), np.ascontiguousarray(up.T), scaling) if flip else LowRank(up, down, scaling)


def _by_pattern(label: str, patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """The first pattern that is the module's name or the end of it, as PEFT looks it up."""
    try:
        for key, value in (patterns or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
    except (AttributeError, re.error) as error:
        raise BadInput(
            f"{label}: {CONFIG}: rank_pattern and alpha_pattern map regular expressions to numbers; {brief(patterns)}: {error}"
        ) from None
    return otherwise


def _check_shapes(label: str, base: Checkpoint, matrices: Mapping[str, LowRank], replaced: Mapping[str, Spec]) -> None:
    shapes: dict[str, tuple[int, ...]] = {name: (len(one.left), one.right.shape[1]) for name, one in matrices.items()}
    shapes |= {name: spec.shape for name, spec in replaced.items()}
    for name, shape in shapes.items():
        if name == HEAD and name not in base.tensors and is_tied(base.config):
            raise BadInput(
                f"{label}: the adapter changes {name!r}, which the base ties to its embeddings: a change of the one alone has no place "
                "there. Untie the base (store lm_head.weight, tie_word_embeddings: false) and give that, or train without lm_head."
            )
        if name not in base.tensors:
            raise BadInput(f"{label}: the adapter changes {name!r}, which the base does not have")
        if base.tensors[name].shape != shape:
            raise BadInput(f"{label}: tensor {name!r} has shape {list(shape)}, the base's has {list(base.tensors[name].shape)}")


def _check_frozen(label: str, base: Checkpoint, spec: Spec) -> None:
    """PEFT saves an embedding that it adapts beside A and B, as it was before: it must be the base's."""
    name = spec.name.removeprefix(_PREFIX).replace(".base_layer.", ".")
    ours = base.tensors[name]
    if not np.array_equal(read(spec), narrow(widen(read(ours), ours.dtype), spec.dtype)):
        raise BadInput(f"{label}: the adapter was trained on another {name!r} than the base's")


def _check_named(label: str, trained: Base, base: Checkpoint) -> None:
    """The base that an adapter of ours names must be the one that is merged into."""
    if trained.weights != (found := weights_of(base.folder)):
        raise BadInput(
            f"{label}: an adapter of another base: it was trained on {trained}, and the base {base.folder} has weights {found}"
        )


def _check_base(label: str, folder: Path, name: str, base: Checkpoint, called: Collection[str]) -> None:
    """An adapter is a change of one base only: the folder it names must hold the same bytes, or the user vouches for the name."""
    if name in called:
        return
    there = next((path for path in (Path(name), folder / name) if name and is_folder(path)), None)
    if there is None:
        raise BadInput(
            f"{label}: its adapter was trained on {name!r}, which is no folder here, so nobody can see whether that is the base. "
            f"If it is, say so: adapter_base: {name!r} (or adapter_base: {{{label}: {name!r}}} for this one alone)."
        )
    if there.resolve() != base.folder.resolve() and weights_of(there) != weights_of(base.folder):
        raise BadInput(f"{label}: its adapter was trained on {there}, whose weights are not those of the base {base.folder}")
