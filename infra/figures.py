"""What the last run says of its models, from reports/metrics.json: pass^1 on write problems and the paired steps of the road.

Every difference is paired on the same problems; the interval (95 %) resamples problems, with the trials of a problem kept together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from infra.bench import ROOT


def _line(label: str, figure: Mapping[str, Any]) -> str:
    trials = f", {figure['trials']} trials" if "trials" in figure else ""
    return f"{label:<34}{figure['mean']:+.3f}  [{figure['low']:+.3f}, {figure['high']:+.3f}]  n={figure['n']}{trials}"


def main() -> int:
    """Print the table."""
    path = ROOT / "reports" / "metrics.json"
    if not path.exists():
        raise SystemExit("reports/metrics.json is missing: `make run` makes it")
    metrics = json.loads(path.read_text())
    worlds = sorted(metrics["baselines"])
    print("pass^1 on write problems")
    for model in ("base", "sft", *(f"rl_{world}" for world in worlds), "merged"):
        for world in worlds:
            print(_line(f"  {model}, {world}", metrics["evaluate"][model][world]["families"]["write"]["pass_1"]))
    print("paired differences of pass^1, all families")
    steps = ["sft-base", "sft-sft_unfiltered", *(f"rl_{world}-sft" for world in worlds), "merged-sft", "merged-base"]
    for pair in (step for step in steps if step in metrics["paired"]):
        for world in worlds:
            print(_line(f"  {pair}, {world}", metrics["paired"][pair][world]["pass_1"]))
    print("paired differences of pass^1, write problems")
    for world in worlds:
        print(_line(f"  sft-base, {world}", metrics["paired"]["sft-base"][world]["families"]["write"]["pass_1"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
