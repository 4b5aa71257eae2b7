"""`cairn calls`: what model servers answered so far, and how to forget it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contract.losses import remedy
from tasks.contract.params import BadInput, nearest
from tasks.players.openai_compatible.cache import NAME, SHORTEST, Cache, answer_id


def lines(state: Path) -> list[str]:
    """The cache's size, and per model and role the answers kept and their tokens; money as it was paid, kept or not."""
    path = state / NAME
    if not path.is_file():
        return ["no model server was ever asked here"]
    cache = Cache(state)
    kept, money, odd = cache.kept(), cache.money(), cache.odd()
    cache.close()
    out = [f"{path}: {_size(path) / 1e6:.1f} MB", "", f"{'model':<32} {'role':<13} {'answers':>9} {'tokens in':>13} {'tokens out':>13}"]
    out += [
        f"{row['model']:<32} {row['role']:<13} {row['answers']:>9,} {row['tokens_in']:>13,} {row['tokens_out']:>13,}" for row in kept
    ]
    out += ["", *(f"paid to {model}: {paid:.4f}" if paid else f"paid to {model}: unknown (no prices)" for model, paid in money.items())]
    if odd:
        out += ["", "what was odd, over all runs:"]
    for row in odd:
        about = remedy(row["reason"], row["role"])
        out.append(
            f"{row['role']} ({row['model']}): {row['times']} {row['reason']}{f': {about}' if about else ''}. Last: {row['said']}"
        )
    return out


def as_document(state: Path) -> dict[str, Any]:
    """The same for scripts. answers, odd: per model and role; paid: model -> money, null where no price is known."""
    path = state / NAME
    if not path.is_file():
        return {"file": None, "bytes": 0, "answers": [], "paid": {}, "odd": []}
    cache = Cache(state)
    kept, money, odd = cache.kept(), cache.money(), cache.odd()
    cache.close()
    return {
        "file": str(path),
        "bytes": _size(path),
        "answers": [dict(row) for row in kept],
        "paid": {model: paid or None for model, paid in money.items()},
        "odd": [dict(row) for row in odd],
    }


def _size(path: Path) -> int:
    """Bytes of the cache with what SQLite keeps beside it."""
    return sum(part.stat().st_size for part in (path, path.with_name(f"{NAME}-wal")) if part.exists())


def forget_answer(state: Path, name: str) -> str:
    """Delete the answer with this id, as messages name it; returns what was deleted. BadInput when there is none, or several."""
    wanted = name.strip().lower()
    if len(wanted) < SHORTEST or set(wanted) - set("0123456789abcdef"):
        raise BadInput(f"--forget-answer {name!r}: an id is {SHORTEST} or more of 0-9 and a-f, as messages about an answer show it.")
    found = Cache(state).named(wanted) if (state / NAME).is_file() else []
    if len(found) != 1:
        why = "several kept answers have ids that begin so; give more of it" if found else "no answer with that id is kept"
        raise BadInput(f"--forget-answer {name!r}: {why}.")
    key, model, role = found[0]
    Cache(state).forget_answer(key)
    return f"answer {answer_id(key)} of {model} (role {role})"


def forget(state: Path, model: str) -> int:
    """Delete a model's answers; returns how many. BadInput when it has none."""
    known = {row["model"] for row in Cache(state).kept()} if (state / NAME).is_file() else set()
    if model not in known:
        raise BadInput(
            f"--forget {model!r}: no answers of that model are kept.{nearest(model, known)} Kept: {', '.join(sorted(known)) or 'none'}."
        )
    return Cache(state).forget(model)
