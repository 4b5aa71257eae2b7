"""The trail of a row: a blueprint, a conversation, a critique or a pair of critiques; what it was made of, and what learned from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.evaluate_agent import CHECKPOINT, CONTENDER
from flows.model_names import left_by
from flows.preview_text import call_text
from flows.trace.learned import learned_from
from flows.trace.rows import (
    BLUEPRINTS,
    CONVERSATIONS,
    CRITIQUES,
    MARKED,
    PAIRS,
    PROBLEMS,
    TRIALS,
    Place,
    beside,
    input_of,
    rows,
)
from flows.trace.stages import Known, down
from flows.trace.trail import Section, Trail
from tasks.contract.problem import ACCEPTED

Row = Mapping[str, Any]
PARTS = ("state", "outputs", "required", "policy", "reward")


def of_row(known: Known, name: str, places: Sequence[Place]) -> Trail:
    """The trail of the row that these files hold. places: where it was found, the workspace's first."""
    place = places[0]
    sections = row_sections(known, name, place)
    others = {one.identity for one in places if one.stage == place.stage} - {place.identity}
    if others:
        first = sections[0]
        note = [*_lines(first.facts.get("lies in")), f"also in other results of {place.stage}: {', '.join(sorted(others))}"]
        sections[0] = Section(first.kind, first.name, {**first.facts, "lies in": note}, first.missing, first.details)
    below, stages = down(known, {place.stage: place.identity})
    return Trail([*sections, *below], stages)


def row_sections(known: Known, name: str, place: Place) -> list[Section]:
    """The sections of one row, without the results that its own was made of."""
    return [*_SECTIONS[place.path.name](known, name, place)]


def _lines(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _where(place: Place) -> str:
    return f"{place.path.name} of {place.stage} {place.identity}"


# --- conversations ---------------------------------------------------------------------------------------------------


def _conversation(known: Known, name: str, place: Place) -> Iterator[Section]:
    """A conversation of generate: itself, its critiques, its marks, who learned from it, its blueprint."""
    row = rows(place.path, "traj_id", name)[0]
    yield _talk(row, place)
    yield from _judged(known, name, place.identity)
    yield from _blueprint(known, row["problem_id"], place)


def _marked(known: Known, name: str, place: Place) -> Iterator[Section]:
    """A row of a data set: as the conversation that it marks, where that is at hand."""
    record = known.records.of(place.identity, place.stage)
    player = input_of(known, record, "generate", CONVERSATIONS) if record else None
    if player and player.path.is_file() and rows(player.path, "traj_id", name, "traj_id"):
        yield from _conversation(known, name, player)
        return
    row = rows(place.path, "traj_id", name)[0]
    yield _talk(row, place)
    yield _mark(known, row, place)
    why = "the conversations that this data set marks are not at hand, so neither critiques nor the blueprint can be shown; `dvc pull`"
    yield Section("blueprint", row["problem_id"], missing=[f"{why} may bring them"])


def _talk(row: Row, place: Place) -> Section:
    broken = f"; broken rules: {', '.join(row['broken'])}" if row["broken"] else ""
    counts = f"{row['n_user_turns']} lines of the user, {row['n_agent_steps']} agent turns, {row['n_tool_calls']} calls"
    states = (row["final_state_hash"], row["wanted_state_hash"])
    facts = {
        "lies in": _where(place),
        "world": f"{row['world']}, {row['split']} split, family {row['family']}",
        "problem": row["problem_id"],
        "shares with": ", ".join(row["lineage"]),
        "played by": f"agent {row['agent']}, human {row['human']}, trial {row['trial']}, seed {row['seed']}",
        "outcome": ("won: " if row["reward"] else "lost: ") + ", ".join(f"{part} {row[part]:g}" for part in PARTS) + broken,
        "blamed": f"{row['blame']}: {row['blame_reason']}" if row["blame"] else "",
        "stop": f"{row['stop']}, after {counts}",
        "state": f"{states[0]}, as wanted" if states[0] == states[1] else f"{states[0]}, wanted {states[1]}",
        "calls": [f"{call_text(call['name'], call['arguments_json'])}{'' if call['ok'] else '  (refused)'}" for call in row["calls"]],
    }
    missing = [] if row["blame"] or row["reward"] else ["whose failure it was: the file was written before that was told apart"]
    return Section("conversation", row["traj_id"], facts, missing, {"messages": row["messages"]})


def _judged(known: Known, name: str, played: str) -> Iterator[Section]:
    """What was said of a conversation of a result of generate, and what became of it."""
    for place in beside(known, played, "critique", CRITIQUES):
        yield _critiques(name, place)
    marks = beside(known, played, "filter", MARKED)
    for place in marks:
        for row in rows(place.path, "traj_id", name):
            yield _mark(known, row, place)
    if not marks:
        yield Section("mark", name, missing=["no data set at hand marks it: the filter did not run on these conversations here"])


def _critiques(name: str, place: Place) -> Section:
    found = rows(place.path, "traj_id", name)
    facts: dict[str, str | list[str]] = {"lies in": _where(place)}
    for row in found:
        units = [
            f"message {unit['location']}, {unit['criterion']}, severity {unit['severity']}: {unit['description']}"
            for unit in row["units"] or ()
        ]
        facts[str(row["source"])] = [f"score {_two(row['score'])}, worth of the critique {_two(row['quality'])}", *units]
    pairs = place.path.with_name(PAIRS)
    for row in rows(pairs, "traj_id", name) if pairs.is_file() else ():
        kept = "kept" if row["kept"] else f"dropped: {row['drop_reason']}"
        worth = f"{_two(row['q_chosen'])} over {_two(row['q_rejected'])}"
        facts["pair"] = f"{row['pair_id']}: {row['chosen_critic']} before {row['rejected_critic']}, worth {worth}; {kept}"
    return Section("critiques", name, facts, [] if found else ["it was not reviewed"], {"critiques": found})


def _mark(known: Known, row: Row, place: Place) -> Section:
    verdict = "kept" if row["keep"] else f"dropped: {row['reason']}"
    turns = row["trained_turns"]
    facts = {
        "lies in": _where(place),
        "verdict": f"{verdict}; score {row['score']:.2f}, {row['split']} split",
        "weight": "" if row["weight"] is None else f"{row['weight']:g}",
        "turns learned": "" if turns is None else f"{sum(turns)} of {len(turns)}",
        **learned_from(known, row, place),
    }
    return Section("mark", row["traj_id"], facts)


def _critique(known: Known, name: str, place: Place) -> Iterator[Section]:
    """A critique or a pair: the conversation that it is about, or what the critic said alone where that is not at hand."""
    (row,) = rows(place.path, {CRITIQUES: "critique_id", PAIRS: "pair_id"}[place.path.name], name, "traj_id")
    record = known.records.of(place.identity, place.stage)
    player = input_of(known, record, "generate", CONVERSATIONS) if record else None
    yield Section({CRITIQUES: "critique", PAIRS: "pair"}[place.path.name], name, {"lies in": _where(place), "of": row["traj_id"]})
    if player and player.path.is_file():
        yield from _conversation(known, row["traj_id"], player)
        return
    yield _critiques(row["traj_id"], place)
    yield Section("conversation", row["traj_id"], missing=["the conversations are not at hand; `dvc pull` may bring them"])


# --- problems --------------------------------------------------------------------------------------------------------


def _attempts(known: Known, name: str, place: Place) -> Iterator[Section]:
    """A blueprint, the conversations that were played about it, and what became of each."""
    yield from _blueprint(known, name, place)
    player = Place(place.stage, place.identity, place.path.with_name(CONVERSATIONS))
    for row in rows(player.path, "problem_id", name) if player.path.is_file() else ():
        yield _talk(row, player)
        yield from _judged(known, row["traj_id"], place.identity)


def _blueprint(known: Known, name: str, place: Place) -> Iterator[Section]:
    """The attempts at a blueprint, and the blueprints that it was made of."""
    file = Place(place.stage, place.identity, place.path.with_name(BLUEPRINTS))
    found = [row for row in rows(file.path, "problem_id", name) if row["status"] == ACCEPTED] if file.path.is_file() else []
    if not found:
        yield Section("blueprint", name, missing=[f"{BLUEPRINTS} of {place.stage} {place.identity} does not hold it"])
        return
    row = found[0]
    tried = [one for one in rows(file.path, "world", row["world"]) if _same_work(one, row)]
    facts = {
        "lies in": _where(file),
        **_problem_facts(row),
        "walk": " > ".join(row["walk"] or ()),
        "rules": ", ".join(row["policy_ids"] or ()),
        "made of": ", ".join(row["source_ids"] or ()),
        "author": row["generator"],
        "attempts": [line for one in tried for line in _attempt(one)],
        "diff": (row["diff_patch"] or "").splitlines(),
    }
    yield Section("blueprint", name, facts, details={"attempts": tried})
    for parent in row["source_ids"] or ():
        yield from _blueprint(known, parent, place)


def _same_work(one: Row, other: Row) -> bool:
    """Whether two rows are attempts at one blueprint: both came of the same seed and material."""
    return all(one[name] == other[name] for name in ("seed", "context_hash")) and (
        other["seed"] is not None or one["problem_id"] == other["problem_id"]
    )


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _problem_facts(row: Row) -> dict[str, Any]:
    return {
        "world": f"{row['world']}, {row['split']} split, family {row['family']}",
        "shares with": ", ".join(row["lineage"]),
        "persona": row["persona"],
        "wish": row["instruction"],
        "solution": [call_text(call["name"], call["arguments_json"]) for call in row["actions"]],
        "required": [call_text(call["name"], call["arguments_json"]) for call in row["required"]],
        "to be said": ", ".join(row["outputs"]),
    }


def _attempt(row: Row) -> Iterator[str]:
    why = f": {row['fail_reason']}" if row["fail_reason"] else ""
    yield f"{row['attempt'] + 1}: {row['status']}{why}"
    for vote in row["judge_scores"] or ():
        marks = ", ".join(f"{name} {vote[name]}" for name in vote if name not in ("judge", "reason") and vote[name] is not None)
        yield f"   vote of {vote['judge']}: {marks}{'; ' + vote['reason'] if vote['reason'] else ''}"
    if row["feedback"]:
        yield f"   feedback: {row['feedback']}"


# --- evaluations -----------------------------------------------------------------------------------------------------


def _trial(known: Known, name: str, place: Place) -> Iterator[Section]:
    """A conversation of an evaluation: itself, the checkpoint that played it, its problem."""
    record = known.records.of(place.identity, place.stage)
    for row in rows(place.path, "traj_id", name):
        said = _talk(row, place)
        who = {"evaluated": f"model {row['model']}, set {row['set']}", "checkpoint": _checkpoint(known, record, row["model"])}
        elsewhere = row["model"] in (CONTENDER, CHECKPOINT)  # an agent that no road made, whose name is told
        missing = (
            [] if who["checkpoint"] or elsewhere else [f"which checkpoint {row['model']} was: its evaluation's record does not name it"]
        )
        yield Section(said.kind, said.name, {**who, **said.facts}, [*said.missing, *missing], said.details)
    yield from _problem(known, row["problem_id"], Place(place.stage, place.identity, place.path.with_name(PROBLEMS)), alone=False)


def _checkpoint(known: Known, record: Row | None, model: str) -> str:
    left = left_by(model, known.road)
    if record is None or left is None:
        met = {"champion": "opponent", "anchor": "anchor"}.get(model, "")
        return str(record["parts"].get(met) or "") if record else ""
    step, unit = left
    identity = record["parts"]["inputs"].get(step.name)
    return f"{identity}/{unit + '/' if unit else ''}model of {step.name}" if identity else ""


def _problem(known: Known, name: str, place: Place, alone: bool = True) -> Iterator[Section]:
    """A problem of an evaluation; alone: with what each model did about it."""
    found = rows(place.path, "problem_id", name) if place.path.is_file() else []
    facts = {"lies in": _where(place), **_problem_facts(found[0])} if found else {}
    missing = (
        [] if found else [f"its text: {PROBLEMS} of {place.stage} {place.identity} does not hold it (`cairn regrade` draws it again)"]
    )
    trials = place.path.with_name(TRIALS)
    if alone and trials.is_file():
        wins: dict[str, list[int]] = {}
        for row in rows(trials, "problem_id", name, "model", "set", "reward"):
            wins.setdefault(f"{row['model']} ({row['set']})", []).append(row["reward"])
        facts["played"] = [f"{who}: {sum(won)} of {len(won)} won" for who, won in wins.items()]
    yield Section("problem", name, facts, missing)


_SECTIONS = {
    **{CONVERSATIONS: _conversation, MARKED: _marked, CRITIQUES: _critique, PAIRS: _critique},
    **{BLUEPRINTS: _attempts, TRIALS: _trial, PROBLEMS: _problem},
}
