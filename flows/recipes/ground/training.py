"""A tiny Qwen3 over bare token ids, and one short training loop: seeded, on one thread, the same weights every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.base.core.looking_back import look_back
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

HEAD = 32
"""Dimensions of an attention head, as in `tasks.base.tiny_qwen3`: rotary positions need some of them."""
POSITIONS = 256
"""Longest sequence, tokens; the recipes' own have fewer than 64."""
MAX_NORM = 1.0
"""Gradients are clipped to this norm, the usual value."""
WARMUP = 20
"""Steps of linear warm-up, as `tasks.sft` has; a shorter training warms up over a tenth of its steps."""
TAIL = 10
"""The final loss is the mean over the last 1 / TAIL of the steps: one batch of a tiny task is noisy."""


@dataclass(frozen=True)
class Batch:
    """ids: int64 [b, t]. scored: bool [b, t], true where the token is to be predicted from those before it, never in column 0."""

    ids: torch.Tensor
    scored: torch.Tensor


Sample = Callable[[int, "torch.Generator"], Batch]
"""Draws that many sequences with a generator."""


@dataclass(frozen=True)
class Schedule:
    """steps of `batch` sequences at a peak rate that falls linearly to 0. muon: for the layers' matrices, AdamW for the rest."""

    steps: int
    batch: int
    rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"


def generator(*names: object) -> torch.Generator:
    """A generator for something named: the same names give the same stream."""
    import torch

    return torch.Generator().manual_seed(seed_of(*names))


def tiny_model(vocabulary: int, layers: int, width: int, seed: int, looks_back: bool = False) -> PreTrainedModel:
    """A Qwen3 with random weights: heads of HEAD dimensions, MLP of 8/3 width (rounded up to 32), tied embeddings.

    looks_back: half of the first layer's heads start as previous-token heads (`tasks.base.core.looking_back`), without which a
    text's sentences take several times as long to learn.

    Raises BadInput for a width that is no multiple of HEAD.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    if width % HEAD:
        raise BadInput(f"width = {width} is not a multiple of {HEAD}, the size of an attention head")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=-(-8 * width // 96) * 32,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
        head_dim=HEAD,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    if looks_back:
        with torch.no_grad():
            look_back(model)
    return model


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters, a tied table once."""
    return sum(parameter.numel() for parameter in model.parameters())


def logits_of(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, vocabulary] of the scored tokens, in the order of rows and columns, and the tokens [n] themselves."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = batch.scored[:, 1:]
    return model.lm_head(hidden[wanted]), batch.ids[:, 1:][wanted]


def train(
    model: PreTrainedModel, sample: Sample, schedule: Schedule, seed: int, masks: Mapping[str, torch.Tensor] | None = None
) -> float:
    """Train the parameters that require gradients, in place; returns the final loss (nats a scored token).

    seed: of the batches. masks: parameter name -> 0/1 in its shape; entries with 0 keep their value bit for bit, because their
    gradient is 0 from the first step on, before clipping, and nothing decays. Raises ValueError for masks with Muon, whose
    updates mix a matrix's entries.
    """
    import torch

    if masks is not None and schedule.optimizer == "muon":
        raise ValueError("masks need an optimizer that moves each entry on its own")
    torch.set_num_threads(1)
    optimizer = _optimizer(model, schedule)
    rates = [group["lr"] for group in optimizer.param_groups]
    stream = generator(seed)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    warmup = min(WARMUP, schedule.steps // 10)
    losses: list[float] = []
    model.train()
    for step in range(schedule.steps):
        logits, targets = logits_of(model, sample(schedule.batch, stream))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        for name, mask in (masks or {}).items():
            named[name].grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(named.values(), MAX_NORM)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / (warmup + 1)) * (1 - step / schedule.steps)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    last = losses[-max(1, schedule.steps // TAIL) :]
    return sum(last) / len(last)


def _optimizer(model: PreTrainedModel, schedule: Schedule) -> Any:
    """The sft room's, new for each training: no momentum survives a phase, and nothing decays."""
    from tasks.sft.core import optimizer
    from tasks.sft.core.params import Loop

    return optimizer.build(
        model, Loop(optimizer=schedule.optimizer, learning_rate=schedule.rate, muon_rate=schedule.rate, weight_decay=0.0)
    )


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A copy of the parameters by name, a tied table once."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def set_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Put parameters back; every one of the model's must be there."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def save_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor], folder: Path) -> Path:
    """Write a checkpoint folder with these weights (config and safetensors; bare ids need no tokenizer); returns the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(str(folder))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(folder / "model.safetensors"), {"format": "pt"})
    return folder


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint folder by name."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(str(folder / "model.safetensors"))
    return found


def distance(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """L2 norm of the difference over all weights."""
    squares = [float((tensor.double() - right[name].double()).square().sum()) for name, tensor in left.items()]
    return float(sum(squares) ** 0.5)
