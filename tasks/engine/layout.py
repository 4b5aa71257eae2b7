"""Where params stood in earlier versions of Cairn and where they stand now: one table, oldest first.

`cairn run` refuses params that stand in an old place and says the new one; `cairn migrate` moves them. A later change of places adds
lines to the end of the table and touches nothing else: a file of any age is brought up to date by going through all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Move:
    """A param that has another place now.

    since: the month in which it moved, as 2026-11. old, new: dotted keys; `*` in `old` stands for any one name but the one that `new`
    has there (`sft.*.epochs` -> `sft.loop.epochs`: of every method, and the loop's own stays).
    """

    since: str
    old: str
    new: str


@dataclass(frozen=True)
class Default:
    """A value that Cairn once gave to files that do not name it: in a file with params in places older than `since`, it is written
    down where it is missing, so that the file goes on meaning what it meant."""

    since: str
    key: str
    value: Any


SFT_LOOP = (
    *("epochs", "control", "optimizer", "learning_rate", "muon_rate", "beta2", "warmup", "batch_tokens", "max_length", "min_trained"),
    *("weight_decay", "max_norm", "max_steps", "bf16", "log_every", "save_every", "validate_every", "validation_rows"),
)
"""Stood under each method of sft."""
RL_LOOP = (
    *("steps", "groups", "group_size", "lr", "schedule", "max_grad_norm", "slices", "temperature", "bf16", "max_turns"),
    *("max_turn_tokens", "max_episode_tokens", "rows", "screen_problems", "screen_trials", "pool", "validate_every"),
    *("validation_temperature", "validation_problems", "max_family_fall", "max_lost", "min_trained", "entropy_floor", "entropy_stop"),
)
"""Stood under each method of rl."""
MOVES: Sequence[Move] = tuple(
    Move("2026-11", f"{stage}.*.{key}", f"{stage}.loop.{key}") for stage, keys in (("sft", SFT_LOOP), ("rl", RL_LOOP)) for key in keys
)
DEFAULTS: Sequence[Default] = (
    Default("2026-11", "filter.rejection_sampling.min_score", 0.5),  # these stood in files of single methods
    Default("2026-11", "merge.breadcrumbs.keep", 0.2),
    Default("2026-11", "merge.breadcrumbs.alpha", 0.8),
)
NEW: Sequence[tuple[str, Any]] = tuple((f"{stage}.agents", {"method": "react"}) for stage in ("generate", "rl", "evaluate"))
"""Sections that every file needs and that older ones lack, with the value that leaves all as it was."""


@dataclass(frozen=True)
class Outdated:
    """One param in an old place. free: false when the new place holds another value already, or cannot be made."""

    move: Move
    old: str
    new: str
    value: Any
    free: bool = True

    def __str__(self) -> str:
        return f"{self.old} has another place now: {self.new}"


def outdated(tree: Any, moves: Sequence[Move] | None = None) -> list[Outdated]:
    """The params of a file that stand in old places, in the table's order; those of a chosen method before those of its siblings."""
    found: list[Outdated] = []
    taken: dict[str, Any] = {}
    for move in MOVES if moves is None else moves:
        places = sorted(_places(tree, move), key=lambda old: not _chosen(tree, old))
        for old in places:
            value, there = get(tree, old), get(tree, move.new)
            there = taken.setdefault(move.new, value) if there is NOTHING else there
            found.append(Outdated(move, old, move.new, value, free=there == value and makeable(tree, move.new)))
    return found


def _places(tree: Any, move: Move) -> Iterator[str]:
    """Keys of a file that a line of the table speaks of."""
    parts, new = move.old.split("."), move.new.split(".")

    def below(node: Any, depth: int, path: tuple[str, ...]) -> Iterator[str]:
        if depth == len(parts):
            yield ".".join(path)
        elif isinstance(node, Mapping):
            wild = parts[depth] == "*"
            names = [name for name in node if name != new[depth]] if wild else [parts[depth]]
            for name in names:
                if name in node:
                    yield from below(node[name], depth + 1, (*path, str(name)))

    yield from below(tree, 0, ())


def _chosen(tree: Mapping[str, Any], key: str) -> bool:
    """Whether a key belongs to the method that its section chooses."""
    stage, _, rest = key.partition(".")
    return get(tree, f"{stage}.method") == rest.partition(".")[0]


NOTHING = object()
"""No value at all, in contrast to null."""


def get(tree: Any, key: str | Sequence[str]) -> Any:
    """The value at a key, dotted or in parts, or NOTHING."""
    for part in key.split(".") if isinstance(key, str) else key:
        if not isinstance(tree, Mapping) or part not in tree:
            return NOTHING
        tree = tree[part]
    return tree


def makeable(tree: Any, key: str) -> bool:
    """Whether a value can be written at a dotted key: all above it are sections, or empty, or not there yet."""
    *above, _ = key.split(".")
    nodes = [get(tree, above[:depth]) for depth in range(1, len(above) + 1)]
    return all(node is NOTHING or node is None or isinstance(node, Mapping) for node in nodes)


def refusal(tree: Any, source: str) -> str:
    """Why a file, or an override, cannot be used as it is; empty when all stands where it belongs."""
    found = outdated(tree)
    if not found:
        return ""
    lines = [f"{source}: {one}" for one in found]
    return "\n".join([*lines, "`cairn migrate` moves it in the files of params/ (`cairn migrate --check` says what it would change)."])
