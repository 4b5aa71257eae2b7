"""What a step costs on a GPU: time with its queue empty, memory at most, dtypes of the linear maps."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GIB = 2**30


def now(device: str) -> float:
    """Seconds, with the GPU's queue empty."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def gpu_memory(device: str) -> Iterator[dict[str, float]]:
    """Yields a mapping that holds, at the end, what tensors took on the GPU before and at most (GiB); empty on a CPU."""
    found: dict[str, float] = {}
    if device == "cpu":
        yield found
        return
    import torch

    gc.collect()  # a Trainer is a ring of references: the model before this one must be gone
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found["before"] = round(torch.cuda.memory_allocated() / GIB, 3)
    yield found
    found["peak"] = torch.cuda.max_memory_allocated() / GIB


class Watch:
    """A method's log that notes when each step was reported, and in which dtypes linear maps computed until the first was: those of
    torch's layers and those of an engine without layers. One at a time."""

    def __init__(self, device: str, name: str) -> None:
        """name: of the curve that has one point a step."""
        from torch.nn import functional

        self.ends: dict[int, float] = {}
        self.values: dict[int, float] = {}
        self.dtypes: dict[str, set[str]] = {}
        self._device, self._name = device, name
        self._linear = functional.linear
        functional.linear = self._hear

    def _hear(self, x: Any, weight: Any, bias: Any = None) -> Any:
        import torch

        output = self._linear(x, weight, bias)
        act = "rollout" if torch.is_inference_mode_enabled() else "training"
        weights, computed = (str(one.dtype).removeprefix("torch.") for one in (weight, output))
        self.dtypes.setdefault(act, set()).add(f"{computed} (weights {weights})")
        return output

    def __call__(self, name: str, value: float, step: int) -> None:
        """`Context.log`."""
        if name == self._name:
            self.ends[step], self.values[step] = now(self._device), value
            self.close()

    def close(self) -> None:
        """Stop listening: it would cost time in the steps that count."""
        from torch.nn import functional

        functional.linear = self._linear

    def summary(self) -> dict[str, str]:
        """Act -> the dtypes of its linear maps' outputs, and of weights as they enter them."""
        return {act: " and ".join(sorted(found)) for act, found in sorted(self.dtypes.items())}
