"""Problems out of a world's rows: a user's context, a scripted draft, a draft as a problem, and many different problems of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import SPLITS, Action, Problem
from tasks.worlds.api.state import State, canonical_json

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

BY_WRITES = ("information", "one_write", "two_writes", "three_writes")
"""Families of problems for which nobody names one, by the number of their writes; the last one has three or more."""
TRIES = 200
"""Redraws of one problem before its family counts as impossible in the split; ours."""


def draw_problems(world: World, split: str, count: int, seed: int, families: Sequence[str] | None = None) -> list[Problem]:
    """`count` different problems of a split, families in turn. The first n of them do not depend on `count`."""
    if split not in SPLITS:
        raise BadInput(f"split {split!r}: allowed are {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
    chosen = tuple(families) if families is not None else world.families
    for family in chosen:
        if family not in world.families:
            known = ", ".join(world.families)
            raise BadInput(f"world {world.name}: no family {family!r}.{nearest(family, world.families)} Families: {known}.")
    if count and not chosen:
        raise BadInput(
            f"world {world.name}: makes no problems of its own (FAMILIES is empty): room generate proves some. Or give it FAMILIES, "
            "context and propose; an adapted world a problems_file."
        )
    if hasattr(world.shared.cls, "problems"):
        own: list[Problem] = world.shared.cls.problems(split, count, seed, chosen)
        return own
    if world.foreign is not None and world.foreign.lines:
        given: list[Problem] = world.foreign.problems(world, split, count, seed, chosen)
        return given
    made: dict[str, Problem] = {}
    for place in range(count):
        problem = _draw(world, split, chosen[place % len(chosen)], seed, place, made)
        made[problem.problem_id] = problem
    return list(made.values())


def in_turn(found: Sequence[Problem], families: Sequence[str], order: Callable[[str], Random]) -> list[Problem]:
    """Problems with their families in turn, each family in an order that its generator gives."""
    piles = {family: [problem for problem in found if problem.family == family] for family in families}
    for family, pile in piles.items():
        order(family).shuffle(pile)
    turns = max((len(pile) for pile in piles.values()), default=0)
    return [pile[turn] for turn in range(turns) for pile in piles.values() if turn < len(pile)]


def _draw(world: World, split: str, family: str, seed: int, place: int, made: Mapping[str, Problem]) -> Problem:
    rng = Random(seed_of(world.name, split, seed, family, place))
    for _ in range(TRIES):
        context = user_context(world, rng, split)
        draft = propose(world, context, rng, family=family)
        if draft:
            problem = problem_of(world, draft, context)
            if problem.problem_id not in made and world.replay(problem.actions).ok:  # wishes of one draft can clash
                return problem
    raise BadInput(
        f"world {world.name}: no further problem of family {family!r} in split {split!r} after {TRIES} draws "
        f"({len(made)} made, {len(world.shared.users[split])} users there). Make the world larger "
        f"(worlds.size = {world.shared.size})."
    )


@dataclass(frozen=True)
class Excerpt:
    """How much of an adapted world's state a generator is shown. tokens: about. edge_cases: share of users who are chosen for a row
    at a limit of the policy, 0 to 1. A world that has `context` says for itself what is shown."""

    tokens: int = 3000
    edge_cases: float = 0.2


def user_context(world: World, rng: Random, split: str, excerpt: Excerpt = Excerpt()) -> dict[str, Any]:
    """JSON-able rows of one user of a split, with a persona: all that a generator is given of the database."""
    if hasattr(world.shared.cls, "problems"):
        raise BadInput(f"world {world.name}: is an environment, without rows of which problems could be made: it draws them itself.")
    users = world.shared.users[split] or (_case(world, rng, split),)
    found: dict[str, Any]
    if not hasattr(world.shared.cls, "context") and world.foreign is not None:
        user, found = world.foreign.context(world, users, excerpt, rng)
    else:
        user = rng.choice(users)
        others = [other for other in users if other != user]
        state = State(world.shared.base) if world.foreign is None else world.foreign.state(world.shared.base)
        found = world.shared.cls.context(state, user, others, rng)
    return {"world": world.name, "split": split, "user_id": user, "persona": rng.choice(world.personas), **found}


def _case(world: World, rng: Random, split: str) -> str:
    """A lineage of its own, of a world of which no user is known: a drawn number, whose hash says its split."""
    while True:
        case = f"case{rng.getrandbits(48):015d}"
        if split_of(case, seed_of(world.name, world.shared.seed)) == split:
            return case


def split_of(name: str, seed: int) -> str:
    """70 / 10 / 20 % for train, validation and test, by a seeded hash of a name alone."""
    share = seed_of(seed, "split", name) % 10
    return "test" if share < 2 else "validation" if share < 3 else "train"


def propose(
    world: World, context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
) -> dict[str, Any]:
    """A scripted draft {thought, instruction, intent, actions, outputs, required, family}, along a walk or in a family.

    {} when this user has nothing that fits the family. A walk is followed as far as the user's rows allow.
    """
    draft: dict[str, Any] = world.shared.cls.propose(context, rng, walk, family)
    return draft


def problem_of(world: World, draft: Mapping[str, Any], context: Mapping[str, Any], lineage: Iterable[str] = ()) -> Problem:
    """A draft as a problem. lineage: besides the user, what it descends from (parent blueprints). Where no state is compared, the
    writes of its ground truth are required calls.
    """
    actions, required = _actions(world, draft["actions"]), _actions(world, draft.get("required", ()))
    if not world.compared:
        required += tuple(action for action in actions if action.kind == "write" and action not in required)
    intent = dict(draft.get("intent") or {})
    outputs = tuple(str(output) for output in draft.get("outputs", ()))
    family = str(draft.get("family") or _family(actions))
    content = canonical_json(
        [world.name, context["user_id"], draft["instruction"], intent, family, outputs]
        + [[action.name, action.arguments] for action in (*actions, *required)]
    )
    tags = getattr(world.shared.cls, "tags", _no_tags)(draft, context)
    return Problem(
        problem_id=f"{world.name}_{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}",
        world=world.name,
        split=context["split"],
        family=family,
        lineage=tuple(dict.fromkeys((context["user_id"], *lineage))),
        persona=str(context["persona"]),
        instruction=draft["instruction"],
        intent=intent,
        actions=actions,
        outputs=outputs,
        required=required,
        tags=tuple(tags),
    )


def _actions(world: World, drafted: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
    return tuple(
        Action(item["name"], dict(item["arguments"]), world.tools[item["name"]].kind if item["name"] in world.tools else "read")
        for item in drafted
    )


def api_graph(world: World) -> dict[str, tuple[str, ...]]:
    """Tool -> the tools that can use its answer: produces meets consumes, and the policy allows it (APIGen-MT 4.1.1)."""
    may_follow = getattr(world.shared.cls, "may_follow", lambda first, second: True)
    return {
        first.name: tuple(
            second.name
            for second in world.tools.values()
            if second is not first and set(first.produces) & set(second.consumes) and may_follow(first.name, second.name)
        )
        for first in world.tools.values()
    }


def _family(actions: Sequence[Action]) -> str:
    """The family of a draft that names none, by its writes."""
    writes = sum(action.kind == "write" for action in actions)
    return BY_WRITES[min(writes, len(BY_WRITES) - 1)]


def _no_tags(draft: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[str, ...]:
    return () if context["split"] == "train" else ("unseen_user",)
