"""The five samplers of APIGen-MT (section 4.1.1): a walk on the API graph, rules, data, a persona, examples.

Each draws for one blueprint, and how many things it gives is drawn too. The context so made is kept through all attempts at a
blueprint: only the feedback changes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from tasks.worlds.api.problem_making import Excerpt, api_graph, user_context

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

Graph = Mapping[str, Sequence[str]]
"""API graph: tool -> the tools that can use its results (A -> B iff produces(A) meets consumes(B) and the policy allows it)."""


@dataclass(frozen=True)
class Material:
    """The context of one blueprint. number: which blueprint of its world. walk: tools to centre on; or else family: the kind of
    task wanted. data: the sampled rows, JSON-able, with the persona."""

    world: str
    split: str
    number: int
    walk: tuple[str, ...]
    family: str
    policies: tuple[str, ...]
    data: Mapping[str, Any]
    persona: str
    examples: tuple[Mapping[str, Any], ...]

    @property
    def hash(self) -> str:
        """What the generator was given, in 16 hexadecimal digits."""
        given = (self.world, self.split, self.walk, self.family, self.policies, self.data, self.persona, self.examples)
        return hashlib.blake2b(json.dumps(given, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Tastes:
    """What the samplers prefer. walked: share of blueprints along a walk, the others in a family of the world, drawn evenly.
    max_writes: most write tools of a walk. zero_writes: share of walks without one. context_tokens, edge_cases: of an adapted world's
    state (`tasks.worlds.api.problem_making.Excerpt`)."""

    walked: float
    max_writes: int
    zero_writes: float
    context_tokens: int
    edge_cases: float


def draw(world: World, split: str, number: int, rng: Random, examples: Sequence[Mapping[str, Any]], tastes: Tastes) -> Material:
    """Draw the context of blueprint `number`."""
    data = user_context(world, rng, split, Excerpt(tastes.context_tokens, tastes.edge_cases))
    kinds = {name: tool.kind for name, tool in world.tools.items()}
    walked = not world.families or rng.random() < tastes.walked
    return Material(
        world=world.name,
        split=split,
        number=number,
        walk=walk(api_graph(world), kinds, rng, tastes.max_writes, tastes.zero_writes) if walked else (),
        family="" if walked else rng.choice(world.families),
        policies=subset(tuple(world.rules), rng, least=1),
        data=data,
        persona=str(data["persona"]),
        examples=tuple(rng.sample(list(examples), min(len(examples), rng.randint(0, MAX_EXAMPLES)))),
    )


MAX_EXAMPLES = 3
"""Most examples in one prompt; ours, the paper randomises the number without giving its range."""
MAX_READS = 4
"""Most reads that lead up to a walk's end; ours: find the user, their list, a row, an alternative."""


def walk(graph: Graph, kinds: Mapping[str, str], rng: Random, max_writes: int, zero_writes: float) -> tuple[str, ...]:
    """A random walk centred on write tools: drawn backwards from a write through the reads that can feed it, then on to more.

    Along the walk each read is followed by a tool that can use its result. With probability `zero_writes` it ends in a read.
    """
    writes = [name for name, kind in kinds.items() if kind == "write"]
    reads = [name for name, kind in kinds.items() if kind == "read"]
    if not writes or rng.random() < zero_writes:
        return tuple(_leading(graph, kinds, rng.choice(reads), rng)) if reads else ()
    target = rng.choice(writes)
    path = _leading(graph, kinds, target, rng)
    for _ in range(rng.randint(1, max_writes) - 1):
        reach = {after for before in path if kinds[before] == "read" for after in graph.get(before, ())}
        further = [name for name in writes if name in reach]
        if further:
            path.append(rng.choice(further))
    return tuple(path)


def _leading(graph: Graph, kinds: Mapping[str, str], target: str, rng: Random) -> list[str]:
    path = [target]
    while len(path) <= MAX_READS:
        before = [name for name in kinds if kinds[name] == "read" and path[0] in graph.get(name, ()) and name not in path]
        if not before:
            break
        path.insert(0, rng.choice(before))
    return path


def subset(names: Sequence[str], rng: Random, least: int) -> tuple[str, ...]:
    """At least `least` of the names, how many and which at random, in their own order."""
    wanted = set(rng.sample(range(len(names)), rng.randint(min(least, len(names)), len(names))))
    return tuple(name for place, name in enumerate(names) if place in wanted)


@dataclass
class Bank:
    """The growing pool of accepted examples of one split of one world.

    A round reads it as the rounds before left it. At most `cap` examples, at most the share `per_walk` of `cap` from one walk:
    else the pool, which feeds the generator that feeds it, would drift towards what is easiest to accept. First come, first kept,
    in the order of blueprint numbers.
    """

    cap: int
    per_walk: float
    examples: list[dict[str, Any]] = field(default_factory=list)
    _walks: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, walk: Sequence[str], example: dict[str, Any]) -> bool:
        """Take an example in; False when the pool, or its share for this walk, is full."""
        key = tuple(walk)
        if len(self.examples) >= self.cap or self._walks[key] >= max(1, int(self.per_walk * self.cap)):
            return False
        self._walks[key] += 1
        self.examples.append(example)
        return True
