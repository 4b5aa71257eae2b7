"""Problems out of services (`services`): a customer's rows, and drafts of what they may want of them, allowed and forbidden."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

from tasks.worlds.api.scripts import drafting
from tasks.worlds.api.scripts.drafting import NUMBER_WORDS, Case, Maker, Single, Step, call, forbidden, foreign, look_ups, proposer
from tasks.worlds.api.scripts.services import Row, Service, Services, Slots


class Rows(Protocol):
    """The state of a world, as far as a context is made of it."""

    def get(self, table: str, key: str, /) -> Any:
        """A row, None when there is none."""
        ...

    def find(self, table: str, /, **fields: Any) -> list[str]:
        """Keys of the rows with these fields."""
        ...

    def rows(self, table: str, /) -> Iterable[tuple[str, Any]]:
        """All rows of a table by key."""
        ...


def families(made: Services) -> tuple[str, ...]:
    """The families of problems that the services allow."""
    if made.families:
        return made.families
    rules = made.own or any(one.rules for one in made.writes.values())
    also = (("forbidden", rules), ("information", made.questions), ("hand_over", made.hand_overs))
    return (*NUMBER_WORDS[: min(2, len(made.writes))], *(family for family, there in also if there))


def context(made: Services) -> Callable[..., dict[str, Any]]:
    """A world's `context`: the customer's row, the rows of theirs and those that are nobody's, and a row of somebody else."""

    def context(db: Rows, user_id: str, others: Sequence[str], rng: Random) -> dict[str, Any]:
        """All that a problem may be about."""
        owner, found, strange = made.conventions.owner, {"user": db.get(made.users, user_id)}, dict[str, str]()
        for one in made.services.values():
            if one.table in found:
                continue
            if one.owned:
                found[one.table] = {key: db.get(one.table, key) for key in db.find(one.table, **{owner: user_id})}
                strange[_foreign_name(one)] = one.table
            else:
                found[one.table] = dict(db.rows(one.table))
        return {**found, **{name: foreign(db.find, table, others, rng, owner) for name, table in strange.items()}}

    return context


def propose(made: Services) -> Callable[..., dict[str, Any]]:
    """A world's `propose`: drafts in a family or along a walk of tools (`drafting.proposer`)."""
    writes: dict[str, Maker] = {kind: _maker(kind, one, made) for kind, one in made.writes.items()}
    informs: dict[str, tuple[str, ...]] = {}
    for kind, one in made.questions.items():
        informs[one.look] = (*informs.get(one.look, ()), kind)
    against = _forbidden(made)
    singles: Mapping[str, Single] = {
        "forbidden": lambda case, kinds: forbidden(case, against, made.held_out_rules),
        "information": lambda case, kinds: _question(case, tuple(kinds) or tuple(made.questions), made),
        "hand_over": lambda case, kinds: _handed_over(case, made),
    }
    tool_of = {kind: one.act for kind, one in made.writes.items()}
    return proposer(made.phrases, families(made), writes, tool_of, singles, informs, made.held_out, made.conventions)


# --- one wish each: Step, or None when the rows do not allow it ---

Choice = Callable[[Row], list[dict[str, str]]]
"""The details with which a wish about a row would do, without its key; [] for none."""


def _maker(kind: str, one: Service, made: Services) -> Maker:
    """What nothing forbids."""

    def choice(row: Row) -> list[dict[str, str]]:
        return [slots for slots in one.details("") if not one.forbidden_by(row, slots)]

    return lambda case: _draw(case, kind, one, made, choice)


def _draw(case: Case, kind: str, one: Service, made: Services, choice: Choice) -> Step | None:
    key, row = case.choose(one.table, lambda row: one.fits(row) and bool(choice(row)))
    if not key:
        return None
    slots = case.rng.choice(choice(row)) if one.slots else {}
    return _step(case, kind, one, made, row, {**slots, one.key: key})


def _step(case: Case, kind: str, one: Service, made: Services, row: Row, slots: Slots) -> Step:
    ordered = {slot: slots[slot] for slot in (one.key, *one.slots)}
    look = call(one.look, **{one.key: ordered[one.key]})
    if not one.act:
        return drafting.question(kind, ordered, look, one.output.format(**{**row, **ordered}))
    arguments = one.called_with(ordered, case.context["user_id"])
    act = call(one.act, **{name: value for name, value in arguments.items() if one.defaults.get(name, ...) != value})
    if kind in made.hand_overs:
        return drafting.handed_over(kind, ordered, look, act)
    outputs = (one.output.format(**{**row, **ordered}),) if one.output else ()
    return Step(kind, ordered, tuple(ordered.values()), (look, act), outputs)


def _question(case: Case, kinds: Sequence[str], made: Services) -> Step | None:
    kind = case.rng.choice(kinds)
    return _maker(kind, made.services[kind], made)(case)


def _handed_over(case: Case, made: Services) -> Step | None:
    kind = case.rng.choice(made.hand_overs) if len(made.hand_overs) > 1 else made.hand_overs[0]
    return _maker(kind, made.services[kind], made)(case)


# --- what a rule forbids: the look-up that shows it, and the reason that must be told ---


def _forbidden(made: Services) -> dict[str, Maker]:
    """Rule -> a wish that it forbids and that no rule before it does."""
    makers: dict[str, Maker] = {}
    if made.own and any(one.owned for one in made.writes.values()):
        makers[made.own] = lambda case: _somebody_elses(case, made)
    for name in (name for name in made.rules if name != made.own):
        kinds = [kind for kind, one in made.writes.items() if name in [rule.name for rule in one.rules]]
        makers[name] = partial(_against, name=name, kinds=kinds, made=made)
    return makers


def _against(case: Case, name: str, kinds: Sequence[str], made: Services) -> Step | None:
    kind = case.rng.choice(kinds) if len(kinds) > 1 else kinds[0]
    one = made.services[kind]

    def choice(row: Row) -> list[dict[str, str]]:
        broken = [(slots, one.forbidden_by(row, slots)) for slots in one.details("")]
        fit = [(slots, rules) for slots, rules in broken if rules and rules[0].name == name]
        fewest = min((len(rules) for _, rules in fit), default=0)
        return [slots for slots, rules in fit if len(rules) == fewest]

    step = _draw(case, kind, one, made, choice)
    if step is None:
        return None
    row = case.context[one.table][step.slots[one.key]]
    rule = next(rule for rule in one.rules if rule.name == name and rule.forbids(row, step.slots))
    return look_ups(step, name, rule.output.format(**{**row, **step.slots}))


def _somebody_elses(case: Case, made: Services) -> Step | None:
    kind, one = next((kind, one) for kind, one in made.writes.items() if one.owned)
    key = case.context[_foreign_name(one)]
    if not key:
        return None
    usual = {slot: str(one.defaults.get(slot, values[0])) for slot, values in one.slots.items()}
    return look_ups(_step(case, kind, one, made, {}, {one.key: key, **usual}), made.own, "another account")


def _foreign_name(one: Service) -> str:
    return f"foreign_{one.key.removesuffix('_id')}"
