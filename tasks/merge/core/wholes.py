"""Adapters of a road on their way into a merge: as they are where their change has a place in the base, else as whole checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.checkpoints import adapters, saving
from tasks.contract.params import BadInput


def mergeable(base: Path, experts: Mapping[str, Path], artifacts: Mapping[str, Path], scratch: Path) -> dict[str, Any]:
    """The room's `Inputs`: `base` whole, and experts that `make_plan` takes. artifacts: identity -> folder of those at hand.

    An adapter of `base` goes as it is, unless it is a DoRA, which is no sum. Where `base` is an adapter itself (an sft from which
    specialists went on), it and its experts are merged into the base of both, each in a folder of `scratch`. BadInput for an adapter of
    another base, with both named.
    """

    def whole(folder: Path, name: str) -> Path:
        return saving.merged(folder, artifacts, scratch / "whole" / name)

    trained = adapters.base_of(base) if adapters.is_adapter(base) else adapters.named(base, artifacts, {})
    found: dict[str, Path] = {}
    for name, folder in experts.items():
        own = adapters.base_of(folder) if adapters.is_adapter(folder) else None
        if own is not None and trained is not None and own.weights != trained.weights:
            raise BadInput(
                f"{name}: an adapter of another base: it was trained on {own}, and the merge's base is {trained}. Merge adapters of "
                "one base, or train with adapter.save: full."
            )
        direct = own is None or (not adapters.is_adapter(base) and own.adapter.get("kind") in ("lora", "rslora", "qlora"))
        found[name] = folder if direct else whole(folder, f"expert_{name}")
    return {"base": whole(base, "base") if adapters.is_adapter(base) else base, "experts": found}
