"""Weights and adapters by name: of a model in memory, as views of its parameters, or of a folder, mapped from its safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import lora_config
from tasks.checkpoints.adapters import active_adapter
from tasks.checkpoints.reading import readable
from tasks.contract.params import BadInput
from tasks.players.local.own.architecture import Architecture, check_names, read
from tasks.players.local.own.stack import Adapter, Stack

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

LORA = re.compile(r"(?P<linear>.+)\.lora_(?P<side>A|B|magnitude_vector)(?:\.(?P<adapter>[^.]+?))?(?:\.weight)?")
WHOLE = re.compile(r"(?P<module>.+)\.(?P<which>original_module|modules_to_save)\.(?:(?P<adapter>[^.]+)\.)?(?P<kind>weight|bias)")
"""A module that PEFT trains whole: as it was, and as it is with an adapter."""


def of_model(model: PreTrainedModel) -> tuple[Stack, dict[str, Adapter]]:
    """A transformers model, or one that wears PEFT's LoRA adapters: (stack, adapter's name -> adapter). Parameters are not copied: a
    training step that changes them changes the stack (of DoRA the gains are those of now).
    BadInput names parameters that the engine has no use for."""
    weights: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, dict[str, Tensor]]] = {}
    active, whole = active_adapter(model), False
    for name, tensor in model.named_parameters(remove_duplicate=False):
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if found := LORA.fullmatch(name):
            linears = pairs.setdefault(found["adapter"], {})
            linears.setdefault(found["linear"], {})[found["side"]] = tensor.detach()
        elif found := WHOLE.fullmatch(name):
            if found["adapter"] == active:
                weights[f"{found['module']}.{found['kind']}"], whole = tensor.detach(), True
        else:
            weights[name] = tensor.detach()
    scales = {name: module.scaling for name, module in model.named_modules() if hasattr(module, "lora_A")}
    adapters: dict[str, Adapter] = {}
    for adapter, linears in pairs.items():
        adapters[adapter] = {
            linear: _change(sides, float(scales["base_model.model." + linear][adapter]), weights.get(linear + ".weight"))
            for linear, sides in linears.items()
        }
    return _stack(read(model.config.get_text_config()), weights, active if whole else ""), adapters


def _change(sides: Mapping[str, Tensor], scale: float, weight: Tensor | None) -> tuple[Tensor, Tensor, float, Tensor | None]:
    """An adapter's part of one linear map. weight: (out, in) of the base."""
    if weight is None or sides.keys() < {"A", "B"}:
        raise BadInput(f"engine own: an adapter of something else than a linear map: {', '.join(sorted(sides))}")
    down, up = sides["A"], sides["B"]
    if (length := sides.get("magnitude_vector")) is None:
        return down, up, scale, None
    lengths = (weight.float() + scale * (up.float() @ down.float())).norm(dim=1)  # DoRA, https://arxiv.org/abs/2402.09353, eq. 5
    return down, up, scale, length.float() / lengths


def of_folder(folder: Path, device: str, dtype: str | None = None) -> Stack:
    """A checkpoint folder; dtype: a torch dtype's name, None for the checkpoint's own. On a CPU and in its own dtype its weights stay
    in the files, mapped into memory. FileNotFoundError when there is no model in it."""
    import torch
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no checkpoint here (config.json is missing)")
    architecture = read(AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))
    wanted = None if dtype is None else getattr(torch, dtype)
    return _stack(architecture, {name: tensor.to(device=device, dtype=wanted) for name, tensor in _tensors(folder)})


def adapter_of_folder(folder: Path, stack: Stack) -> Adapter:
    """A LoRA adapter as PEFT saves it. BadInput for another kind, for one that is broken, or of another base: the linear map that does
    not fit is named."""
    with readable(f"{folder}: this adapter cannot be read"):
        return _adapter(folder, stack)


def _adapter(folder: Path, stack: Stack) -> Adapter:
    config = lora_config.read(folder)
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise BadInput(
            f"{folder}: engine own adds LoRA adapters alone; this one has peft_type {config.get('peft_type')}, modules_to_save "
            f"{config.get('modules_to_save')}. Merge it into its base first."
        )
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _tensors(folder):
        if (found := LORA.fullmatch(name.removeprefix("base_model.model."))) is None:
            raise BadInput(f"{folder}: {name} is no part of a LoRA adapter")
        pairs.setdefault(found["linear"], {})[found["side"]] = tensor.to(device=stack.device, dtype=stack.dtype)
        if not bool(tensor.isfinite().all()):
            raise BadInput(f"{folder}: {name} holds a weight that is NaN or infinite: whoever plays with it would say nothing")
    if not pairs:
        raise BadInput(f"{folder}: an adapter without weights: it would play as its base does")
    for linear, sides in pairs.items():
        if missing := {"A", "B"} - sides.keys():
            raise BadInput(f"{folder}: {linear} has no lora_{' and no lora_'.join(sorted(missing))}")
        weight = stack.weights.get(linear + ".weight")
        wanted = None if weight is None else tuple(weight.shape)
        if (given := (sides["B"].shape[0], sides["A"].shape[1])) != wanted:
            raise BadInput(f"{folder}: an adapter of another base: {linear} is {wanted or 'not in it'} there, and {given} here")
    try:
        lora_config.check(config, {linear: sides["A"].shape[0] for linear, sides in pairs.items()})
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from None
    return {
        linear: _change(sides, _scale(config, linear, sides["A"].shape[0]), stack.weights[linear + ".weight"])
        for linear, sides in pairs.items()
    }


def _scale(config: Mapping[str, Any], linear: str, rank: int) -> float:
    _, alpha = lora_config.of_pattern(config.get("alpha_pattern") or {}, linear, config.get("lora_alpha", lora_config.DEFAULT))
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    if not (files := sorted(folder.glob("*.safetensors"))):
        raise FileNotFoundError(f"{folder}: no safetensors here; pickled weights are not loaded")
    for file in files:
        with safe_open(str(file), framework="pt") as kept:
            for name in kept.keys():  # noqa: SIM118 (not a mapping)
                yield name, kept.get_tensor(name)


def _stack(architecture: Architecture, weights: dict[str, torch.Tensor], only: str = "") -> Stack:
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    check_names(weights)
    return Stack(architecture, weights, only)
