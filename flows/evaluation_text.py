"""What `cairn evaluate` says: pass^k with intervals, by family, and what agents have that do nothing or know the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.evaluate_agent import Evaluated
from tasks.contract import schemas, tables
from tasks.contract.context import seed_of
from tasks.contract.problem import PASSIVE
from tasks.contract.trajectory import PARTIES
from tasks.evaluate.core.estimates import estimate, pass_hat_k
from tasks.evaluate.core.tables import COLUMNS, Played
from tasks.evaluate.core.tables import tables as played_of

TRIALS = "trials.parquet"


def document(found: Evaluated, step: str) -> dict[str, Any]:
    """All of it, JSON-able. pass_k: k -> estimate, for every k that the trials allow, over the problems that doing nothing does not
    solve; passive: the same of the others, {} where there are none. step: of the road, whose artifact's name the result has."""
    folder = found.folder / step
    rows = [{name: row[name] for name in COLUMNS} for row in tables.read_rows(folder / TRIALS, schemas.some(schemas.TRIAL, *COLUMNS))]
    played = {(which, model): one for (which, model, _), one in played_of(rows).items()}
    resamples, seed = found.about["params"]["resamples"], seed_of(found.about["seed"], "evaluate", "bootstrap")
    own = played["test", found.model]
    idle = played.get((PASSIVE, found.model))
    families = {family: np.array([name == family for name in own.families]) for family in sorted(set(own.families))}

    def curve(one: Played, mask: Any = slice(None)) -> dict[str, Any]:
        values = {k: [pass_hat_k(one.wins[mask], one.trials, k)] for k in range(1, one.trials + 1)}
        return {str(k): estimate(value, one.trials, seed=seed, resamples=resamples) for k, value in values.items()}

    return {
        **found.about,
        "problems": len(own.problems),
        "trials": own.trials,
        "pass_k": curve(own),
        "families": {family: curve(own, mask) for family, mask in families.items()},
        PASSIVE: curve(idle) if idle else {},
        "baselines": {model: curve(one)["1"] for (which, model), one in played.items() if which == "baseline"},
        "stops": dict(sorted(own.stops.items())),
        "lost_by": {party: own.blame.get(party, 0) for party in PARTIES},
        "tokens_per_trial": round(own.tokens, 1),
        "folder": str(found.folder),
        "trials_file": str(folder / TRIALS),
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The document for a reader."""
    human = found["roles"].get("human") or {}
    who = human.get("model") or human.get("path") or "a script"
    told = f"{found['problems']} problems x {found['trials']} trials, split {found['split']}; the user is played by {who}"
    name = " ".join(filter(None, (found["model"], f"at {found['agent']}" if found["model"] != found["agent"] else "")))
    out = [f"{name} in {found['world']}", told, ""]
    for k, one in found["pass_k"].items():
        out.append(f"pass^{k:<3} {_estimate(one)}" + (f"   95 % interval over {one['n']} problems" if k == "1" else ""))
    out += ["", *(f"{family:<22} pass^1 {_estimate(curve['1'])}  n {curve['1']['n']}" for family, curve in found["families"].items())]
    if idle := found[PASSIVE]:
        out.append(f"{'passive, apart':<22} pass^1 {_estimate(idle['1'])}  n {idle['1']['n']}: doing nothing solves these")
    out += [f"{name:<22} pass^1 {_estimate(one)}" for name, one in found["baselines"].items()]
    lost = ", ".join(f"{count} by {party}" for party, count in found["lost_by"].items() if count)
    ends = ", ".join(f"{stop} {count}" for stop, count in found["stops"].items())
    out += [
        "",
        f"lost: {lost or 'none'}; ends: {ends}",
        f"trials: {found['trials_file']} (`cairn regrade` and `cairn trace` read them)",
    ]
    return out


def _estimate(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
