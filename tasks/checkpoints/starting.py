"""How a training begins and ends with `<stage>.loop.adapter`: which model trains, and what of it is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.checkpoints import adapters, folders, saving
from tasks.checkpoints.adapter_params import TABLES, AdapterParams, another, lasting
from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

START = "start"
"""Name of the frozen adapter beside the one that trains, where that goes on from another: what the model was at the start."""
STARTS = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}
"""init -> PEFT's init_lora_weights."""


@dataclass(frozen=True)
class Start:
    """A checkpoint that a training begins with.

    model: plain, without its adapter where that is to be trained further. folder: of the checkpoint. base: what an adapter of `model`
    changes; None where that is stored nowhere (an adapter was merged into it).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    params: AdapterParams
    folder: Path
    base: adapters.Base | None
    grown: bool = False

    @property
    def continues(self) -> bool:
        """Whether the training goes on with the adapter of the checkpoint."""
        return self.params.kind != "none" and adapters.is_adapter(self.folder)

    def wear(self, model: PreTrainedModel) -> PreTrainedModel:
        """`model`, as a method has prepared it, with the adapter that is to train: a new one, or the checkpoint's own."""
        if self.params.kind == "none":
            return model
        if adapters.has_adapter(model):
            raise StageFailed(
                f"the method puts in an adapter of its own, and loop.adapter.kind is {self.params.kind}. Write kind: none with it."
            )
        if self.continues:
            return adapters.put_on(model, self.folder, trains=True, dropout=self.params.dropout)
        return put_new(model, self.params, self.grown)

    def remember(self, model: PreTrainedModel) -> PreTrainedModel:
        """The same model; where it goes on with an adapter, that adapter as it was stays beside it under the name START, frozen."""
        if self.continues:
            model.load_adapter(str(self.folder), START, is_trainable=False)
        return model

    def keep(self, model: PreTrainedModel, folder: Path, beside: Path, may_change: bool = True) -> None:
        """Leave a trained model as the checkpoint `folder`; what of it is kept is said by `save`.

        beside: for the adapter, where a whole checkpoint is wanted. may_change: whether `model` may be merged; else a copy is.
        """
        if not adapters.has_adapter(model):
            saving.save(model, self.tokenizer, folder)
            return
        if self.params.save == "adapter":
            if self.base is None:
                raise StageFailed(
                    "the method's adapter changes a model that is stored nowhere: the start was an adapter, merged because "
                    "loop.adapter.kind is none. Write loop.adapter.save: full."
                )
            saving.keep_adapter(model, self.tokenizer, folder, self.base)
            return
        if self.base is not None:
            saving.keep_adapter(model, self.tokenizer, beside, self.base)
        own = model if may_change else copy.deepcopy(model)
        saving.save(own.float().merge_and_unload(), self.tokenizer, folder)


def begin(folder: Path, params: AdapterParams, artifacts: Mapping[str, Path], device: str = "cpu") -> Start:
    """Open the checkpoint that a training begins with. artifacts: identity -> folder of the artifacts at hand.

    An adapter is trained further, on its base, where `params` say the same kind; where they say `none` it is merged, and all weights
    train. StageFailed where they say another, or qlora where it cannot run.
    """
    said = lasting(params)
    if not adapters.is_adapter(folder):
        base = adapters.named(folder, artifacts, {} if params.kind == "none" else said)
        model, tokenizer = _in_4_bits(folder, device) if params.kind == "qlora" else folders.load(folder, device)
        return Start(model, tokenizer, params, folder, base, params.kind != "none" and adapters.grow(model, tokenizer))
    if params.kind == "none":
        return Start(*adapters.load_whole(folder, artifacts, device), params, folder, None)
    there = adapters.base_of(folder)
    if there is None or there.adapter != said:
        raise StageFailed(another(dict(there.adapter) if there and there.adapter else {}, said))
    if params.kind == "qlora":
        model, _ = _in_4_bits(adapters.find_base(folder, artifacts), device)
        return Start(model, folders.load_tokenizer(folder), params, folder, there)
    return Start(*adapters.load_base(folder, artifacts, device), params, folder, there)


def put_new(model: PreTrainedModel, params: AdapterParams, grown: bool = False) -> PreTrainedModel:
    """A plain model with a new adapter. grown: it was given rows for added tokens, so its vocabulary's layers train whole.

    StageFailed for names in `targets` or `modules_to_save` that the model has not.
    """
    from peft import LoraConfig, get_peft_model

    whole = [*params.modules_to_save, *(_tables(model) if grown else ())]
    config = LoraConfig(
        r=params.r,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=params.targets,
        modules_to_save=whole or None,
        init_lora_weights=STARTS[params.init],
        use_dora=params.kind == "dora",
        use_rslora=params.kind == "rslora",
        ensure_weight_tying=bool(whole) and bool(model.config.get_text_config().tie_word_embeddings),
        task_type="CAUSAL_LM",
    )
    try:
        worn: PreTrainedModel = get_peft_model(model, config, adapter_name=adapters.ADAPTER)
    except ValueError as error:  # no such layers
        raise StageFailed(f"loop.adapter.targets = {params.targets}: {error}") from None
    _check_found(worn, whole)
    _check_targets(worn, params.targets)
    return worn


def trained(model: PreTrainedModel) -> dict[str, int]:
    """How many parameters train, and of how many: for the figures."""
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return {"trained_parameters": sum(size for size, trains in sizes if trains), "parameters": sum(size for size, _ in sizes)}


def trained_text(model: PreTrainedModel) -> str:
    """How many parameters train, for people."""
    found = trained(model)
    share = found["trained_parameters"] / found["parameters"]
    return f"{found['trained_parameters']:,} of {found['parameters']:,} parameters train ({share:.2%})"


def _tables(model: PreTrainedModel) -> list[str]:
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    return [TABLES[0]] if tied else list(TABLES)


def _check_found(model: PreTrainedModel, names: list[str]) -> None:
    """PEFT passes over names in modules_to_save that no module has."""
    there = [name.removesuffix(".modules_to_save") for name, _ in model.named_modules() if name.endswith(".modules_to_save")]
    for name in names:
        if not any(f".{one}".endswith(f".{name}") for one in there):
            raise StageFailed(f"loop.adapter.modules_to_save names {name!r}, and no module's name ends so.")


def _check_targets(model: PreTrainedModel, names: Literal["all-linear"] | list[str]) -> None:
    """PEFT passes over names that no layer has, as long as another one has a layer."""
    changed = [name.removesuffix(".lora_A") for name, _ in model.named_modules() if name.endswith(".lora_A")]
    for name in names if isinstance(names, list) else ():
        if not any(f".{one}".endswith(f".{name}") for one in changed):
            raise StageFailed(f"loop.adapter.targets names {name!r}, and no layer's name ends so.")


def _in_4_bits(folder: Path, device: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """The base of QLoRA: its linear layers in 4 bits (NF4), computed in bfloat16."""
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise StageFailed(f"loop.adapter.kind: qlora needs an NVIDIA GPU, and device is {device}. Write device: cuda, or kind: lora.")
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kind = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        quantization_config=kind,
        device_map={"": device},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False), folders.load_tokenizer(folder)
