"""What the last run says of its models, from data/evaluate/metrics.json: pass^1 on write problems and the paired steps of the road.

Every difference is paired on the same problems; the interval (95 %) resamples problems, with the trials of a problem kept together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from flows.model_names import is_step, place
from infra.bench import ROOT
from tasks.road import ROAD


def _line(label: str, figure: Mapping[str, Any]) -> str:
    trials = f", {figure['trials']} trials" if "trials" in figure else ""
    return f"{label:<34}{figure['mean']:+.3f}  [{figure['low']:+.3f}, {figure['high']:+.3f}]  n={figure['n']}{trials}"


def main() -> int:
    """Print what data/evaluate/metrics.json says."""
    path = ROOT / "data" / ROAD.judged / "metrics.json"
    if not path.exists():
        raise SystemExit(f"{path.relative_to(ROOT)} is missing: `make run` makes it")
    metrics = json.loads(path.read_text())
    print_figures(metrics)
    if apart := metrics.get("unseen"):
        print("\nworlds that no training saw")
        print_figures(apart)
    return 0


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Print the tables of an evaluation."""
    worlds = sorted(metrics["baselines"])
    print("pass^1 on write problems")
    for model in sorted(metrics["evaluate"], key=place):
        for world in worlds:
            print(_line(f"  {model}, {world}", metrics["evaluate"][model][world]["families"]["write"]["pass_1"]))
    print("paired differences of pass^1, all families")
    models = sorted(metrics["evaluate"], key=place)
    ends = {pair: pair.partition("-") for pair in metrics["paired"]}
    whole = f"{models[-1]}-{models[0]}"
    steps = [pair for pair, (later, _, earlier) in ends.items() if pair == whole or is_step(later, earlier, models)]
    for pair in steps:
        for world in worlds:
            print(_line(f"  {pair}, {world}", metrics["paired"][pair][world]["pass_1"]))
    print("paired differences of pass^1, write problems")
    for pair in (pair for pair in steps if pair != whole and ends[pair][2] == models[0]):
        for world in worlds:
            print(_line(f"  {pair}, {world}", metrics["paired"][pair][world]["families"]["write"]["pass_1"]))


if __name__ == "__main__":
    sys.exit(main())
