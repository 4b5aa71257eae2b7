"""The table of `make bench-quickstart`, on trials made by hand.

Two worlds, in each 10 problems of family "one_write" and 10 of "information", 4 trials each; WINS has the successes of every
problem of a family. By hand, pass^1:
    sft: .5 everywhere. base: 0.
    rl_airline - sft, airline: ((1 - .5) x 10 + 0 x 10) / 20 = +.25.
    rl_retail - sft, retail: (+.5 x 10 - .5 x 10) / 20 = 0, and "information" lies at -.5 for all 10 problems: the interval ends
    at -.5 + (1 - .025^(1/10)) x 1.5 = -.037, so that family is below.
    merged - sft: airline +.25, retail (+.25 x 10) / 20 = +.125; over both .1875.
    best specialist: rl_airline, (.75 + .5) / 2 = .625 against (.5 + .5) / 2. merged - rl_airline: (0 + .125) / 2 = .0625.
    sft - sft_unfiltered: .25 for each of 40 problems; the interval begins at .25 - (1 - .025^(1/20)) x 1.25 = +.04.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.bench_quickstart import TAGS, UNFILTERED, Figure, Line, Road, lines, over_seeds, travel
from tasks.engine.start import MARKERS
from tasks.evaluate.core.tables import Maker, metrics, tables

WORLDS = ("airline", "retail")
FAMILIES = ("one_write", "information")
WINS = {  # model -> world -> wins of 4 in (one_write, information)
    "base": {"airline": (0, 0), "retail": (0, 0)},
    "sft": {"airline": (2, 2), "retail": (2, 2)},
    "rl_airline": {"airline": (4, 2), "retail": (2, 2)},
    "rl_retail": {"airline": (2, 2), "retail": (4, 0)},
    "merged": {"airline": (4, 2), "retail": (3, 2)},
}
CONTROL = {"airline": (1, 1), "retail": (1, 1)}


def trials(which: str, model: str, wins: dict[str, tuple[int, int]], count: int = 4) -> list[dict[str, Any]]:
    """Rows of one model; the first problem of each world is in an unseen phrasing."""
    return [
        {
            "model": model,
            "set": which,
            "world": world,
            "problem_id": f"{family}_{problem}",
            "family": family,
            "tags": ["unseen_phrasing"] if (family, problem) == ("one_write", 0) else [],
            "trial": trial,
            "reward": int(trial < won),
            "policy": 1.0,
            "stop": "user_stop",
            "blame": "",
            "n_tokens": 10,
        }
        for world in WORLDS
        for family, won in zip(FAMILIES, wins[world], strict=True)
        for problem in range(10)
        for trial in range(count)
    ]


def road(seconds: float = 400.0, **more: dict[str, tuple[int, int]]) -> Road:
    """A finished road with the models of WINS and those of `more`."""
    wins = {**WINS, **more}
    test = [row for model, won in wins.items() for row in trials("test", model, won)]
    others = [*trials("gate", "merged", WINS["merged"]), *trials("baseline", "do_nothing", WINS["base"], 1)]
    said = metrics([*test, *others], list(wins), "merged", dict.fromkeys(WORLDS, ("one_write",)), None, Maker(0, 200))
    played = {(model, world): one for (_, model, world), one in tables(test).items()}
    return Road(0, seconds, {"sft": 30.0}, said, played, 0.7)


def by_label(found: list[Line]) -> dict[str, Line]:
    """Every line has a label of its own."""
    assert len({line.label for line in found}) == len(found)
    return {line.label: line for line in found}


def mean(line: Line) -> float:
    """The line's figure."""
    assert line.figure is not None
    return line.figure.mean


def test_worked_example() -> None:
    found = by_label(lines(road()))
    base, sft = (found[f"pass^1 on write problems, temperature 0.7: {model}, retail"] for model in ("base", "sft"))
    assert (mean(base), base.verdict, mean(sft), sft.verdict) == (0, "met", 0.5, "met, aim missed")
    airline, retail = found["rl_airline - sft, airline"], found["rl_retail - sft, retail"]
    assert (mean(airline), airline.verdict) == (0.25, "met, aim met")
    assert (mean(retail), retail.verdict) == (0, "missed, aim missed")
    below = {world: found[f"  families below sft, {world}"] for world in WORLDS}
    assert (mean(below["airline"]), below["airline"].verdict) == (0, "met")
    assert below["retail"].figure == Figure(1, note="information") and below["retail"].verdict == "missed"
    merged = found["merged - sft, mean over worlds"]
    assert (mean(merged), merged.verdict) == (0.1875, "met")
    best = found["merged - best specialist, mean over worlds"]
    assert best.figure and (best.figure.mean, best.figure.n, best.figure.note) == (0.0625, 40, "best: rl_airline")
    assert (mean(found["whole road, s"]), found["whole road, s"].verdict) == (400, "met, aim met")


def test_the_unseen_stand_apart() -> None:
    found = by_label(lines(road()))
    phrasing = found["unseen_phrasing: merged, retail"]
    assert phrasing.figure and (phrasing.figure.mean, phrasing.figure.n, phrasing.verdict) == (0.75, 1, "-")
    assert found["unseen_rule: sft, airline"].verdict == "not in this run"
    assert sum(line.label.startswith(TAGS) for line in found.values()) == 3 * 2 * 2


def test_the_filter_is_compared_when_its_control_is_there() -> None:
    label = "sft filtered - unfiltered, mean over worlds"
    without, beside = by_label(lines(road()))[label], by_label(lines(road(**{UNFILTERED: CONTROL})))[label]
    assert without.cells() == (label, "reported", "above 0", "-", "not in this run")
    assert beside.figure and (beside.figure.mean, beside.verdict) == (0.25, "aim met")
    assert beside.figure.low == pytest.approx(0.25 - (1 - 0.025 ** (1 / 20)) * 1.25, abs=1e-6)


def test_a_pair_that_the_metrics_lack_is_made_of_the_trials() -> None:
    whole = road()
    less = replace(whole, metrics={**whole.metrics, "paired": {}})
    for label, line in by_label(lines(whole)).items():
        same = by_label(lines(less))[label]
        assert (line.figure and line.figure.mean, line.verdict) == (same.figure and same.figure.mean, same.verdict)


def test_other_problems_are_not_paired() -> None:
    whole = road()
    less = tables([row for row in trials("test", "merged", WINS["merged"]) if row["problem_id"] != "one_write_0"])
    with pytest.raises(ValueError, match="not the same test problems"):
        lines(replace(whole, test={**whole.test, ("merged", "retail"): less["test", "merged", "retail"]}))


def test_over_seeds_the_median_counts() -> None:
    found = by_label(over_seeds([lines(road(100.0)), lines(road(1000.0)), lines(road(500.0, **{UNFILTERED: CONTROL}))]))
    whole = found["whole road, s"]
    assert whole.figure == Figure(500, note="2 of 3 seeds", spread=(100, 1000)) and whole.verdict == "met, aim missed"
    assert whole.cells()[3:] == ("500 (100..1000)", "met, aim missed; 2 of 3 seeds")
    control = found["sft filtered - unfiltered, mean over worlds"]
    assert control.figure and (control.figure.spread, control.figure.note) == ((0.25, 0.25), "1 of 1 seeds")
    assert found["  families below sft, retail"].cells()[4] == "missed; 0 of 3 seeds; information"
    assert found["unseen_rule: sft, retail"].figure is None


def test_a_road_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    """In a project of its own, so that no project above the folder is found and run."""
    for marker in MARKERS:
        (tmp_path / marker).parent.mkdir(exist_ok=True)
        (tmp_path / marker).write_text("stages: {}\n" if marker == "dvc.yaml" else "nonsense: 1\n")
    with pytest.raises(SystemExit, match=r"seed 3: `cairn run` ended with [12] after \d+ s:\n(.|\n)*the section 'worlds' is missing"):
        travel(tmp_path, 3)
