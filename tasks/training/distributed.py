"""One training on several processes (torch's FSDP2): each holds a slice of every weight and passes its share of a step's rows.

The processes are started by torchrun (`tasks.engine.child`), all run the same code, and process 0 alone leaves a result. Libraries
beside torch are not told (`join` hides torchrun's variables), so that the Trainer of each does what it does for one process.

A pass needs every process, as each holds slices that the others compute with: all pass equally often, in the same order. What one
process alone does (in rl: conversations, judging, the record) is brought to the others by `of_first`.
"""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from tasks.contract.params import Params

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Made = TypeVar("Made")
Part = TypeVar("Part")
_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
_LONGEST = timedelta(days=30)
"""How long a process waits for another, which may play conversations meanwhile; one that died is seen by torchrun, which ends all."""


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
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=_LONGEST)
    for name in _VARIABLES:
        os.environ.pop(name, None)


def whole_of(model: Any, device: str) -> Any:
    """Before `shard`: a whole copy of a model on a device of process 0, for `gather`; None on the others."""
    return copy.deepcopy(model).to(device) if rank() == 0 else None


def shard(model: Any) -> None:
    """Slice a model's weights over the processes, layer by layer, in place. Between two passes each process holds slices alone."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(model.device.type, (size(),))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    model.through = types.MethodType(lambda self, compute: compute(), model)
    register_fsdp_forward_method(model, "through")


def through(model: Any, compute: Callable[[], Made]) -> Made:
    """What `compute` makes of tensors with parts of a model (its decoder, its head) that it calls by themselves. Of a sliced model the
    weights outside its layers are whole meanwhile."""
    found: Made = model.through(compute) if hasattr(model, "through") else compute()
    return found


def gather(model: Any, whole: Any) -> Any:
    """The weights that train put into the whole copy; None where there is none."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            value = full(weight.detach())
            if whole is not None:
                whole.get_parameter(name).data.copy_(value)
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


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    return max(gathered(number))


def gathered(value: Made) -> list[Made]:
    """What each process has, in their order."""
    import torch.distributed as dist

    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def of_first(make: Callable[[], Made]) -> Made:
    """What process 0 makes, brought to all; the others wait for it."""
    import torch.distributed as dist

    if size() == 1:
        return make()
    found: list[Any] = [make() if rank() == 0 else None]
    dist.broadcast_object_list(found)
    made: Made = found[0]
    return made


def share(parts: Sequence[Part], idle: Callable[[Part], Part]) -> list[Part]:
    """Of a step's passes those of this process. All pass equally often: who has none left passes what `idle` makes of the first one,
    which is to count nothing."""
    mine = list(parts[rank() :: size()])
    return mine if len(mine) * size() >= len(parts) else [*mine, idle(parts[0])]


def slices(model: Any, optimizer: Optimizer) -> dict[str, Any]:
    """This process's slices of what trains and of the optimiser's states, for a resume state."""
    return {
        "weights": {name: _local(weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad},
        "optimizer": [{name: _local(value) for name, value in optimizer.state[weight].items()} for weight in _weights(optimizer)],
    }


def restore(model: Any, optimizer: Optimizer, found: Mapping[str, Any]) -> None:
    """Go on from what `slices` gave."""
    from torch.distributed.tensor import DTensor

    for name, weight in model.named_parameters():
        if name in found["weights"]:
            _local(weight.data).copy_(found["weights"][name])
    for weight, state in zip(_weights(optimizer), found["optimizer"], strict=True):
        for name, value in state.items():
            local = value.to(_local(weight).device)
            sliced = value.dim() and isinstance(weight, DTensor)
            optimizer.state[weight][name] = (
                DTensor.from_local(local, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride())
                if sliced
                else local
            )


def common(steps: Sequence[int]) -> list[int]:
    """The numbers that every process has."""
    return sorted(set.intersection(*map(set, gathered(list(steps)))))


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
