"""`cairn calls`: what model servers answered so far, and how to forget it."""

from __future__ import annotations

from pathlib import Path

from tasks.llm.endpoint.cache import NAME, Cache
from tasks.params import BadInput, nearest


def lines(state: Path) -> list[str]:
    """The cache's size, and per model and role the answers kept and their tokens; money as it was paid, kept or not."""
    path = state / NAME
    if not path.is_file():
        return ["no model server was ever asked here"]
    cache = Cache(state)
    kept, money = cache.kept(), cache.money()
    cache.close()
    size = sum(part.stat().st_size for part in (path, path.with_name(f"{NAME}-wal")) if part.exists())
    out = [f"{path}: {size / 1e6:.1f} MB", "", f"{'model':<32} {'role':<13} {'answers':>9} {'tokens in':>13} {'tokens out':>13}"]
    out += [
        f"{row['model']:<32} {row['role']:<13} {row['answers']:>9,} {row['tokens_in']:>13,} {row['tokens_out']:>13,}" for row in kept
    ]
    out += ["", *(f"paid to {model}: {paid:.4f}" if paid else f"paid to {model}: unknown (no prices)" for model, paid in money.items())]
    return out


def forget(state: Path, model: str) -> int:
    """Delete a model's answers; returns how many. BadInput when it has none."""
    known = {row["model"] for row in Cache(state).kept()} if (state / NAME).is_file() else set()
    if model not in known:
        raise BadInput(
            f"--forget {model!r}: no answers of that model are kept.{nearest(model, known)} Kept: {', '.join(sorted(known)) or 'none'}."
        )
    return Cache(state).forget(model)
