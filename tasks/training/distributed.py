"""One training on several processes (torch's FSDP2): each holds a slice of every weight and passes its share of a step's rows.

The processes are started by torchrun (`launched`), all run the same code, and process 0 alone leaves a result. Libraries beside torch
are not told (`join` hides torchrun's variables), so that the Trainer of each does what it does for one process.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract.params import Params

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
SHARD = "shard.pt"
"""In a resume state: this process's slices of weights and optimiser."""


class Distributed(Params):
    """On how many processes a loop trains."""

    kind: Literal["none", "fsdp2"] = Field(
        "none", description="fsdp2: weights, gradients and the optimiser's states are sliced (torch)"
    )
    processes: int = Field(1, ge=1, le=1024, description="processes of this machine, each with a GPU of its own where there are some")


def check(params: Distributed, pass_tokens: int, optimizer: str) -> str:
    """What is wrong with these params, or an empty text."""
    if (params.kind == "none") != (params.processes == 1):
        return f"distributed: kind: {params.kind} with processes: {params.processes}. Allowed: fsdp2 with 2 and more, none with 1."
    if params.kind == "fsdp2" and not pass_tokens:
        return "distributed: fsdp2 shares out a step's passes, so it needs pass_tokens. Allowed: 1 and more, such as 4096."
    if params.kind == "fsdp2" and optimizer != "adamw":
        return f"distributed: fsdp2 slices matrices, which optimizer: {optimizer} needs whole. Allowed: adamw."
    return ""


def processes(loop: Mapping[str, Any] | None) -> int:
    """How many processes the params of a loop ask for."""
    return int(((loop or {}).get("distributed") or {}).get("processes", 1))


def rank() -> int:
    """The number of this process; 0 for one that is alone."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def take_gpu(environment: MutableMapping[str, str]) -> None:
    """Let a process of torchrun see the GPU that is its own alone, as `cuda`, before torch looks for any: a library that sees several
    (the Trainer) takes the first, and spreads its batches over all. environment: the process's."""
    number, seen = int(environment["LOCAL_RANK"]), environment.get("CUDA_VISIBLE_DEVICES")
    environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number].strip() if seen else str(number)


def join(device: str) -> None:
    """Meet the other processes; nothing for a process that is alone."""
    import torch.distributed as dist

    if "RANK" not in os.environ or dist.is_initialized():
        return
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    for name in _VARIABLES:
        os.environ.pop(name, None)


def shard(model: Any) -> Any:
    """Slice a model's weights over the processes, layer by layer, in place; returns a whole copy of it for `gather` on process 0, None
    on the others."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = copy.deepcopy(model).cpu() if rank() == 0 else None
    mesh = init_device_mesh(model.device.type, (size(),))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return whole


def gather(model: Any, whole: Any) -> Any:
    """The trained weights put into the whole copy; None where there is none."""
    for name, weight in model.named_parameters():
        value = full(weight.detach()).cpu()
        if whole is not None:
            whole.get_parameter(name).data = value
    return whole


def full(value: Tensor) -> Tensor:
    """A tensor of which each process holds a slice or a part of the sum, whole."""
    found: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return found


def total(value: Tensor) -> Tensor:
    """The sum of a number over the processes."""
    import torch.distributed as dist

    if size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def share(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a step's passes those of this process. All pass equally often, as each needs the others' slices: who has none left passes
    one again that is marked `idle` and counts nothing."""
    mine = list(parts[rank() :: size()])
    return mine if len(mine) * size() >= len(parts) else [*mine, {**parts[0], "idle": parts[0]["row_weights"]}]


def keep(folder: Path, model: Any, optimizer: Optimizer, schedule: Any) -> None:
    """Write this process's slices and what else a resumed run needs."""
    import torch

    states = {
        "weights": {name: _local(weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad},
        "optimizer": [{name: _local(value) for name, value in optimizer.state[weight].items()} for weight in _weights(optimizer)],
        "schedule": schedule.state_dict(),
        "noise": torch.get_rng_state(),
    }
    torch.save(states, folder / SHARD)


def restore(folder: Path, model: Any, optimizer: Optimizer, schedule: Any) -> None:
    """Go on from what `keep` wrote."""
    import torch
    from torch.distributed.tensor import DTensor

    found = torch.load(folder / SHARD, weights_only=True, map_location="cpu")
    for name, weight in model.named_parameters():
        if name in found["weights"]:
            _local(weight.data).copy_(found["weights"][name])
    for weight, state in zip(_weights(optimizer), found["optimizer"], strict=True):
        for name, value in state.items():
            local = value.to(_local(weight).device) if value.dim() else value
            sliced = value.dim() and isinstance(weight, DTensor)
            optimizer.state[weight][name] = (
                DTensor.from_local(local, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride())
                if sliced
                else local
            )
    schedule.load_state_dict(found["schedule"])
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    torch.set_rng_state(found["noise"])


def common(steps: Sequence[int]) -> list[int]:
    """The numbers that every process has."""
    import torch.distributed as dist

    if size() == 1:
        return list(steps)
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, list(steps))
    return sorted(set.intersection(*map(set, found)))


def wait() -> None:
    """Until every process is here."""
    import torch.distributed as dist

    if size() > 1:
        dist.barrier()


def _weights(optimizer: Optimizer) -> list[Any]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _local(value: Tensor) -> Tensor:
    found: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return found
