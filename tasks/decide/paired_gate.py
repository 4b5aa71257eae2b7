"""Decides whether a candidate may become champion: seven gates on the evaluation's figures, all of which must hold.

Method: ours. Paired comparisons on fresh problems (the gate set of `evaluate`), as Cairn's design asks: a fixed set would be
won by luck in a nightly run. How often it errs follows from its params, and `infra/bench_gate.py` simulates it. The gates, in order:

1. reference: aim superiority: on the gate problems the candidate's pass^1 is above the champion's, by the exact paired test at level
   alpha; a model that is no better is promoted in a share alpha of cases. Aim non_inferiority: the low end of the paired 95 % interval
   lies above -margin. Without a champion it must be superior to the first model of the road.
2. families: in no family is it significantly below the champion (without one: below `family_model`, on the test problems), by the
   exact test. Many families are looked at, so each is held to family_alpha / number of families (Bonferroni).
3. benchmark: the oracle solves the problems, doing nothing and answering always the same do not. Else the figures mean
   nothing.
4. minimum: pass^1 on the gate problems is at least min_pass_1 in every world.
5. reach: against a champion, the family with the fewest problems has enough to show a fall of `fall` with probability `power`
   (too_few: allow lets a smaller set decide, and says what it cannot see).

6. as_served: what is served is what was evaluated. Played by the engine `own` in float32 on a CPU every conversation must be the same
   token for token; elsewhere, as served, the candidate must not be significantly below itself, by the exact test at served_alpha.

7. anchor: where the best champion so far (the last one that was shown to be better than the best before it) is not the champion,
   the paired 95 % interval against that lies above -anchor_margin. Under non_inferiority each champion may be a little worse than the
   one before; this holds the sum of it. Whether the candidate is shown to be better than it, and so becomes it, is told (`best`).

Pure: reads one file, plays nothing, looks at no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput, nearest
from tasks.contract.params import Params as Base
from tasks.contract.planned import Planned
from tasks.decide import Inputs
from tasks.decide.core.reach import reach

TITLE = "Paired gate"
PAPER = ""
SLUG = ""

CHAMPION = "champion"
WRITE = "write"  # in metrics.json: all families with writes together; they are looked at one by one here


class Params(Base):
    """Thresholds of the gates; pass^1 values and differences are in [0, 1] and [-1, 1]."""

    aim: Literal["superiority", "non_inferiority"] = Field(
        "superiority", description="what is to be shown against a champion: that the candidate is better, or that it is not much worse"
    )
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="superiority: share of candidates no better than their reference that are promoted all the same"
    )
    margin: float = Field(
        0.05, ge=0, le=1, description="non_inferiority: how far below the champion the paired interval may reach; ours"
    )
    anchor_margin: float = Field(
        0.05, ge=0, le=1, description="how far below the best champion so far the paired interval may reach, whatever the aim; ours"
    )
    family_alpha: float = Field(0.05, gt=0, lt=1, description="chance of a false alarm over all families together")
    family_model: str = Field(
        "", description="model whose families count while there is no champion; empty: the one that the candidate goes on from"
    )
    oracle_at_least: float = Field(1.0, ge=0, le=1, description="pass^1 of the oracle on the test problems of each world")
    idle_at_most: float = Field(0.0, ge=0, le=1, description="pass^1 of the do-nothing and constant agents in each world")
    min_pass_1: float = Field(0.1, ge=0, le=1, description="candidate's pass^1 on the gate problems of each world; ours")
    fall: float = Field(0.3, gt=0, le=1, description="fall of a family's pass^1 below the champion's that must not stay unseen; ours")
    power: float = Field(0.9, gt=0, lt=1, description="probability with which such a fall is to be seen; ours")
    too_few: Literal["refuse", "allow"] = Field(
        "refuse", description="what to do where a family has too few gate problems for that: allow decides, and says what it cannot see"
    )
    as_served: Literal["ask", "skip"] = Field(
        "ask", description="whether what is served must be what was evaluated; skip promotes what nobody played as it is served"
    )
    served_alpha: float = Field(
        0.01, gt=0, lt=0.5, description="as_served, not in float32 by own on a CPU: chance that what is served as evaluated is refused"
    )


def check_road(step: Planned) -> None:
    """Refuse an evaluation that gives this gate nothing to decide by, and a model that it will not know: hours before they are met."""
    evaluation, params = step.reading("evaluate"), step.params
    if evaluation is None:
        return
    if getattr(evaluation.params, "gate_problems", None) == 0:
        raise BadInput(
            f"{step.name}: {evaluation.name} will play none (its gate_problems is 0), so there is nothing to decide by. Raise it."
        )
    if getattr(evaluation.params, "split", "test") != "test":
        raise BadInput(
            f"{step.name}: {evaluation.name} plays validation problems (its split), on which nothing is decided. Allowed: split: test."
        )
    _check_served(step, evaluation)
    known = [name for names in evaluation.models() for name in names]
    parent = next((one.parent() for one in step.inputs if one.checkpoints), "")
    other = params.family_model or parent
    if other and other not in known:
        what = f"family_model = {other!r}: no such model." if params.family_model else f"family_model is empty, which means {other!r}."
        raise BadInput(f"{step.name}: {what}{nearest(other, known)} Models that {evaluation.name} plays: {', '.join(known)}.")


def _check_served(step: Planned, evaluation: Planned) -> None:
    """Refuse an evaluation that cannot say whether what is served is what was evaluated."""
    alpha, problems = step.params.served_alpha, (evaluation.as_served or 0) * len(evaluation.worlds)
    if step.params.as_served == "skip" or evaluation.as_served is None:
        return
    ways = f"{step.name}.{Path(__file__).stem}.as_served: skip promotes what nobody played as it is served"
    if not problems:
        raise BadInput(
            f"{step.name}: {evaluation.name} will not play its candidate as it is served (its as_served.method), which the gate asks "
            f"for. Write as_served: {{method: endpoint}} there; {ways}."
        )
    if evaluation.worlds and getattr(evaluation.params, "dtype", "float32") != "float32" and 0.5**problems > alpha:
        raise BadInput(
            f"{step.name}: {evaluation.name} will play {problems} problems as served, not in float32: even if all of them were lost, "
            f"that would not be shown at served_alpha = {alpha:g}. Raise as_served.endpoint.problems there; {ways}."
        )


def foresee(step: Planned, families: Sequence[int], champion: bool) -> tuple[bool, str]:
    """(whether `run` will not refuse for too few gate problems, what it will be able to see; "" when nobody knows).

    families: how many each world has; a world draws them in turn. champion: whether there is one to protect.
    """
    evaluation, params = step.reading("evaluate"), step.params
    problems = getattr(evaluation and evaluation.params, "gate_problems", 0)
    if not problems or not all(families) or not families:
        return True, ""
    enough, text, figures = reach(
        min(problems // count for count in families), sum(families), params.fall, params.family_alpha, params.power
    )
    if enough or not champion or params.too_few == "allow":
        return True, text
    each = figures["needed"] * max(families)
    return False, f"{text} Raise gate_problems to {each} a world, or write too_few: allow."


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write `ctx.out`/decision.json and return it. BadInput: the evaluation is of another candidate or champion."""
    metrics = _metrics(inputs.evaluate / "metrics.json", inputs.candidate)
    gate = metrics["gate"]
    if not gate:
        raise BadInput(
            "decide: the evaluation played no gate problems (its gate_problems is 0), so there is nothing to decide by. Raise it."
        )
    if (inputs.champion is not None) != (gate["reference"] == CHAMPION):
        found = gate["reference"] or "nobody"
        raise BadInput(
            f"decide: {f'the candidate has to meet the champion {inputs.champion}' if inputs.champion else 'there is no champion'}, "
            f"but the evaluation played the gate against {found}. Evaluate again."
        )
    gates = [
        _reference_gate(gate, params),
        _family_gate(metrics, inputs.candidate, params.family_model or inputs.parent, params.family_alpha),
        _benchmark_gate(metrics["baselines"], params),
        _minimum_gate(gate, params),
        _reach_gate(gate, params),
        *([_anchor_gate(gate["overall"]["anchored"]["pass_1"], params)] if "anchored" in gate["overall"] else []),
        *([_served_gate(metrics, params)] if params.as_served == "ask" else []),
    ]
    failed = [entry for entry in gates if not entry["passed"]]
    said = {
        "decision": "refuse" if failed else "promote",
        "reason": _reason(failed, gates),
        "candidate": {
            "model": inputs.candidate,
            "identity": inputs.candidate_id,
            "pass_1": {world: block["candidate"]["pass_1"]["mean"] for world, block in sorted(gate["worlds"].items())},
        },
        "champion": {"identity": inputs.champion} if inputs.champion else None,
        **({"anchor": {"identity": inputs.anchor}} if inputs.anchor else {}),
        "best": _best(gate, inputs.anchor, params),
        "gates": gates,
    }
    (ctx.out / "decision.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return said


def _metrics(path: Path, candidate: str) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file. Run evaluate first.") from None
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error}). Run evaluate again.") from None
    missing = {"gate", "paired", "baselines"} - set(metrics)
    if missing:
        raise BadInput(f"{path}: {', '.join(sorted(missing))} missing. Run evaluate again.")
    if metrics["gate"]["candidate"] != candidate:
        raise BadInput(
            f"{path}: the gate problems were played by {metrics['gate']['candidate']!r}, not by the candidate {candidate!r}."
            " Run evaluate again."
        )
    return dict(metrics)


def _reason(failed: list[dict[str, Any]], gates: list[dict[str, Any]]) -> str:
    if failed:
        which = " ".join(f"{entry['name']}: {entry['explanation']}" for entry in failed)
        return f"{len(failed)} of {len(gates)} gates {'does' if len(failed) == 1 else 'do'} not hold. {which}"
    return f"All {len(gates)} gates hold. {gates[0]['explanation']}"


def _gate(name: str, passed: bool, figures: Mapping[str, Any], explanation: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "figures": dict(figures), "explanation": explanation}


def _reference_gate(gate: Mapping[str, Any], params: Params) -> dict[str, Any]:
    reference = gate["reference"]
    if reference is None:
        return _gate("reference", False, {}, "There is no other model to compare the candidate with.")
    gap = gate["overall"]["paired"]["pass_1"]
    text = f"difference {gap['mean']:+.3f}, 95 % interval {gap['low']:+.3f} to {gap['high']:+.3f}"
    if reference == CHAMPION and params.aim == "non_inferiority":
        passed, tested = gap["low"] > -params.margin, {"margin": params.margin}
        wanted = f"{'is not' if passed else 'may be'} {params.margin:g} worse than the champion"
    else:
        passed, tested = gap["p_above"] <= params.alpha, {"alpha": params.alpha}
        wanted = f"is {'' if passed else 'not shown to be '}better than {'the champion' if reference == CHAMPION else reference}"
        text = f"p {gap['p_above']:.2g} (at most {params.alpha:g}), {text}"
    figures = {"reference": reference, "aim": params.aim, **tested, "difference": gap}
    return _gate("reference", passed, figures, f"On {gap['n']} fresh problems the candidate {wanted}: {text}.")


def _family_gate(metrics: Mapping[str, Any], candidate: str, other: str, alpha: float) -> dict[str, Any]:
    """Compare family by family with the champion on the gate problems, or without one with `other` on the test problems."""
    gate = metrics["gate"]
    if not gate:
        raise BadInput(
            "decide: the evaluation played no gate problems (its gate_problems is 0), so there is nothing to decide by. Raise it."
        )
    if gate["reference"] == CHAMPION:
        other, worlds = CHAMPION, {world: block["paired"] for world, block in gate["worlds"].items()}
    elif other in ("", candidate):
        which = f"The candidate is {candidate} itself" if other else f"{candidate} goes on from no model"
        return _gate("families", True, {}, f"{which}; there is nothing to fall behind.")
    else:
        pair = f"{candidate}-{other}"
        if pair not in metrics["paired"]:
            known = ", ".join(sorted(metrics["paired"]))
            raise BadInput(f"decide: the evaluation has no pair {pair!r} (see family_model). Pairs: {known}.")
        worlds = metrics["paired"][pair]
    compared = sorted(_families(worlds))
    threshold = alpha / max(len(compared), 1)
    below = {name: gap for name, gap in compared if gap["p_below"] < threshold}
    figures = {"reference": other, "families": len(compared), "threshold": threshold, "below": below}
    if not below:
        return _gate("families", True, figures, f"None of {len(compared)} families is significantly below {other}.")
    worst = ", ".join(f"{name} ({gap['mean']:+.3f}, p {gap['p_below']:.2g})" for name, gap in below.items())
    return _gate("families", False, figures, f"Significantly below {other}: {worst}.")


def _families(worlds: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for world, block in worlds.items():
        for family, part in block["families"].items():
            if family != WRITE:
                yield f"{world} / {family}", part["pass_1"]


def _benchmark_gate(baselines: Mapping[str, Mapping[str, Any]], params: Params) -> dict[str, Any]:
    figures = {
        world: {name: block["pass_1"]["mean"] for name, block in sorted(agents.items())} for world, agents in sorted(baselines.items())
    }
    wrong = [
        f"{name} {mean:.3f} in {world} ({'at least' if name == 'oracle' else 'at most'} {bound:g})"
        for world, agents in figures.items()
        for name, mean in agents.items()
        for bound in [params.oracle_at_least if name == "oracle" else params.idle_at_most]
        if (mean < bound if name == "oracle" else mean > bound)
    ]
    if any("oracle" not in agents for agents in figures.values()) or not figures:
        return _gate("benchmark", False, figures, "The oracle did not play: can the problems be solved at all?")
    if wrong:
        return _gate("benchmark", False, figures, f"The benchmark is not sound: {', '.join(wrong)}.")
    return _gate("benchmark", True, figures, "The oracle solves the problems; doing nothing and a constant answer do not.")


def _minimum_gate(gate: Mapping[str, Any], params: Params) -> dict[str, Any]:
    means = {world: block["candidate"]["pass_1"]["mean"] for world, block in sorted(gate["worlds"].items())}
    low = [f"{mean:.3f} in {world}" for world, mean in means.items() if mean < params.min_pass_1]
    text = (
        f"pass^1 is {', '.join(low)}; at least {params.min_pass_1:g} is wanted."
        if low
        else (f"pass^1 is at least {params.min_pass_1:g} in every world.")
    )
    return _gate("minimum", not low, means, text)


def _reach_gate(gate: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """Whether a fall of a family would have been seen. Without a champion to protect it holds, and says the reach all the same."""
    worlds = {world: block["paired"] for world, block in gate["worlds"].items() if "paired" in block}
    sizes = {name: gap["n"] for name, gap in _families(worlds)}
    if not sizes:
        return _gate("reach", gate["reference"] != CHAMPION, {"families": 0}, "No family was compared on the gate problems.")
    enough, text, figures = reach(min(sizes.values()), len(sizes), params.fall, params.family_alpha, params.power)
    return _gate("reach", enough or gate["reference"] != CHAMPION or params.too_few == "allow", {**figures, "problems": sizes}, text)


def _best(gate: Mapping[str, Any], anchor: str | None, params: Params) -> bool:
    """Whether the candidate is shown to be better than the best champion so far. Not where that did not play."""
    overall = gate["overall"]
    if gate["reference"] != CHAMPION:
        return True
    gap = overall["anchored"] if "anchored" in overall else None if anchor else overall["paired"]
    return gap is not None and gap["pass_1"]["p_above"] <= params.alpha


def _anchor_gate(gap: Mapping[str, Any], params: Params) -> dict[str, Any]:
    passed = gap["low"] > -params.anchor_margin
    wanted = f"{'is not' if passed else 'may be'} {params.anchor_margin:g} worse than the best champion so far"
    text = f"difference {gap['mean']:+.3f}, 95 % interval {gap['low']:+.3f} to {gap['high']:+.3f}"
    figures = {"margin": params.anchor_margin, "difference": gap}
    return _gate("anchor", passed, figures, f"On {gap['n']} fresh problems the candidate {wanted}: {text}.")


def _served_gate(metrics: Mapping[str, Any], params: Params) -> dict[str, Any]:
    served = metrics.get("as_served")
    if not served:
        return _gate("as_served", False, {}, "The candidate was not played as it is served (the as_served of the evaluation).")
    gap, alike, count = served["difference"], served["alike"], served["conversations"]
    means = f"pass^1 {served['as_served']['mean']:.3f} as served, {served['evaluated']['mean']:.3f} as evaluated"
    same = f"{alike} of {count} conversations are the same token for token"
    if served["exact"]:
        passed, wanted = alike == count, "all must be"
        if served["first"]:
            wanted += ", and the first that is not is trial {trial} of {problem_id} in {world}".format(**served["first"])
    else:
        passed, wanted = gap["p_below"] > params.served_alpha, f"p of not below {gap['p_below']:.2g} (above {params.served_alpha:g})"
    return _gate("as_served", passed, served, f"Through the endpoint, {same} ({wanted}); {means}.")
