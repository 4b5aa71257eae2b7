"""Where params stood in earlier versions of Cairn and where they stand now: one table, oldest first.

`cairn run` refuses params that stand in an old place and says the new one; `cairn migrate` moves them. A later change of places adds
lines to the end of the table and touches nothing else: a file of any age is brought up to date by going through all of them.
A key that begins with a room's name is meant of every step that enters the room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.contract.params import brief
from tasks.road import ROAD, Road


@dataclass(frozen=True)
class Move:
    """A param that has another place now.

    since: the month in which it moved, as 2026-11. old, new: dotted keys; `*` in `old` stands for any one name but the one that `new`
    has there (`sft.*.epochs` -> `sft.loop.epochs`: of every method, and the loop's own stays). instead: what to write there, of a param
    whose value means nothing in the new place, so that it does not move by itself.
    """

    since: str
    old: str
    new: str
    instead: str = ""


@dataclass(frozen=True)
class Default:
    """A value that Cairn once gave to files that do not name it: in a file with params in places older than `since`, it is written
    down where it is missing, so that the file goes on meaning what it meant."""

    since: str
    key: str
    value: Any


SFT_LOOP = (
    *("epochs", "control", "optimizer", "learning_rate", "muon_rate", "beta2", "warmup", "batch_tokens", "max_length", "min_trained"),
    *("weight_decay", "max_norm", "max_steps", "log_every", "save_every", "validate_every", "validation_rows"),
)
"""Stood under each method of sft."""
BF16 = "`bfloat16` where bf16 was true and training ran on a GPU (with `checkpointing: true`, in sft), else `float32`"
SLICES = "the most tokens of one pass, which bounds memory whatever the batch; 0 for a batch in one pass"
RL_LOOP = (
    *("steps", "groups", "group_size", "lr", "schedule", "max_grad_norm", "temperature", "max_turns"),
    *("max_turn_tokens", "max_episode_tokens", "rows", "screen_problems", "screen_trials", "pool", "validate_every"),
    *("validation_temperature", "validation_problems", "max_family_fall", "max_lost", "min_trained", "entropy_floor", "entropy_stop"),
)
"""Stood under each method of rl."""
MOVES: Sequence[Move] = (
    *(Move("2026-11", f"{room}.*.{key}", f"{room}.loop.{key}") for room, keys in (("sft", SFT_LOOP), ("rl", RL_LOOP)) for key in keys),
    *(Move("2026-11", f"{room}.{at}.bf16", f"{room}.loop.dtype", BF16) for room in ("sft", "rl") for at in ("*", "loop")),
    *(Move("2026-11", f"rl.{at}.slices", "rl.loop.pass_tokens", SLICES) for at in ("*", "loop")),
)
DEFAULTS: Sequence[Default] = (
    Default("2026-11", "filter.rejection_sampling.min_score", 0.5),  # these stood in files of single methods
    Default("2026-11", "merge.breadcrumbs.keep", 0.2),
    Default("2026-11", "merge.breadcrumbs.alpha", 0.8),
)
NEW: Sequence[tuple[str, Any]] = (
    *((f"{room}.agents", {"method": "react"}) for room in ("generate", "rl", "evaluate")),
    *((f"{room}.engine", {"method": "own"}) for room in ("rl", "evaluate")),
    ("evaluate.as_served", {"method": "endpoint"}),
    ("roles.contender", {"backend": "none"}),
    (
        "reserve",
        {
            "method": "apigen_mt",
            "agents": {"method": "react"},
            "apigen_mt": {"lineages": "test", "problems": 800, "accepted": 200, "round_size": 64},
        },
    ),
)
"""Sections that every file needs and that older ones lack, with the value that leaves all as it was."""


@dataclass(frozen=True)
class Outdated:
    """One param in an old place. why: it cannot move by itself; empty when it can."""

    move: Move
    old: str
    new: str
    value: Any
    why: str = ""

    def __str__(self) -> str:
        if self.move.instead:
            return f"{self.old} is gone. Write {self.new} instead: {self.move.instead}."
        return f"{self.old} has another place now: {self.new}"


def in_steps(key: str, road: Road = ROAD) -> list[str]:
    """A key of the tables as it stands in params: once for each step that enters the room with which it begins; else as it is."""
    room = key.partition(".")[0]
    return [f"{step}{key.removeprefix(room)}" for step in road.entering(room)] or [key]


def outdated(tree: Any, road: Road = ROAD) -> list[Outdated]:
    """The params of a file that stand in old places, in the table's order; those of a chosen method before those of its siblings."""
    found: list[Outdated] = []
    taken: dict[str, Any] = {}
    for move in (replace(line, old=old, new=new) for line in MOVES for old, new in _both(line, road)):
        for old in sorted(_places(tree, move), key=lambda old: not _chosen(tree, old)):
            value, there = get(tree, old), get(tree, move.new)
            if there is NOTHING:
                there = taken.setdefault(move.new, value if "*" not in move.old or _chosen(tree, old) else NOTHING)
            hindrance = f"write {move.new} instead: {move.instead}" if move.instead else _hindrance(tree, move.new, value, there)
            found.append(Outdated(move, old, move.new, value, hindrance))
    return found


def _both(move: Move, road: Road) -> Iterator[tuple[str, str]]:
    """The two keys of a line, for each step that it is about."""
    olds, news = in_steps(move.old, road), in_steps(move.new, road)
    return zip(olds, news if len(news) == len(olds) else [move.new] * len(olds), strict=True)


def _hindrance(tree: Any, new: str, value: Any, there: Any) -> str:
    """Why a value cannot move to its new place by itself. there: what that place means already, NOTHING for a method's default."""
    if not makeable(tree, new):
        return f"{new.rpartition('.')[0]} is no mapping of params"
    if there is NOTHING:
        chosen = get(tree, f"{new.partition('.')[0]}.method")
        return f"{new} is shared by all methods, and {brief(chosen)}, the chosen one, was not given it; write it there, or remove it"
    return "" if there == value else f"{new} is {brief(there)}"


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
    """Whether a key belongs to the method that its section chooses; in a section that chooses none, all do."""
    stage, _, rest = key.partition(".")
    return get(tree, f"{stage}.method") in (NOTHING, rest.partition(".")[0])


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


def refusal(tree: Any, source: str, road: Road = ROAD) -> str:
    """Why a file, or an override, cannot be used as it is; empty when all stands where it belongs."""
    found = outdated(tree, road)
    if not found:
        return ""
    lines = [f"{source}: {one}" for one in found]
    if all(one.move.instead for one in found):
        return "\n".join(lines)
    return "\n".join([*lines, "`cairn migrate` moves it in the files of params/ (`cairn migrate --check` says what it would change)."])
