"""From rows of trials to metrics, on rows made by hand.

Worked example, one world, two problems, 4 trials each: model "sft" wins 4 and 2 of 4, "base" wins 0 and 2.
    pass^1 of sft = (1 + 0.5) / 2 = 0.75; pass^4 = (1 + 0) / 2 = 0.5; sft minus base: ((1 - 0) + (0.5 - 0.5)) / 2 = 0.5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import parse_yaml
from tasks.evaluate.core.figure_files import family_lines, headline, model_figures, model_lines, write_figures
from tasks.evaluate.core.tables import Maker, metrics, tables

WINS = {
    "base": {"p1": 0, "p2": 2},
    "sft": {"p1": 4, "p2": 2},
    "oracle": {"p1": 1, "p2": 1},
    "do_nothing": {"p1": 0, "p2": 0},
}
FAMILY = {"p1": "one_write", "p2": "information"}
TAGS = {"p1": ["unseen_user"], "p2": ["unseen_user", "unseen_phrasing"]}
MAKER = Maker(seed=0, resamples=200)


def rows(which: str, model: str, trials: int = 4, world: str = "retail") -> list[dict[str, Any]]:
    """Rows of one model on the two problems, as the metrics see them."""
    return [
        {
            "model": model,
            "set": which,
            "world": world,
            "problem_id": problem,
            "family": FAMILY[problem],
            "tags": TAGS[problem],
            "trial": trial,
            "reward": int(trial < wins),
            "policy": 0.5,
            "stop": "user_stop" if trial else "max_steps",
            "blame": "" if trial < wins else "human" if trial == 3 else "agent",
            "n_tokens": 10,
        }
        for problem, wins in WINS[model].items()
        for trial in range(trials)
    ]


def everything(reference: str | None = "base", trials: int = 4) -> dict[str, Any]:
    """Metrics of base and sft, with sft as the candidate."""
    found = [*rows("test", "sft", trials), *rows("test", "base", trials)]
    found += [row for model in ("oracle", "do_nothing") for row in rows("baseline", model, 1)]
    found += [row for model in ("sft", "base") for row in rows("gate", model, trials)]
    said = metrics(found, ["base", "sft"], "sft", {"retail": ("one_write",)}, reference, MAKER)
    json.dumps(said, allow_nan=False)
    return said


def test_worked_example() -> None:
    said = everything()
    sft = said["evaluate"]["sft"]["retail"]
    assert (sft["pass_1"]["mean"], sft["pass_4"]["mean"], sft["pass_1"]["n"], sft["pass_1"]["trials"]) == (0.75, 0.5, 2, 4)
    assert said["paired"]["sft-base"]["retail"]["pass_1"]["mean"] == 0.5
    assert sft["families"]["one_write"]["pass_1"]["mean"] == sft["families"]["write"]["pass_1"]["mean"] == 1.0
    assert sft["families"]["information"]["pass_4"]["mean"] == 0.0
    assert sft["tags"]["unseen_phrasing"]["pass_1"]["n"] == 1 and sft["tags"]["unseen_user"]["pass_1"]["n"] == 2
    assert sft["policy"]["mean"] == 0.5 and sft["stops"] == {"max_steps": 2, "user_stop": 6}
    assert sft["lost_by"] == {"agent": 1, "human": 1, "tool": 0}
    assert said["baselines"]["retail"]["oracle"]["pass_1"]["mean"] == 1.0
    assert said["baselines"]["retail"]["oracle"]["pass_4"] is None
    assert said["gate"]["overall"]["paired"]["pass_1"]["mean"] == 0.5


def test_the_order_of_rows_does_not_matter() -> None:
    found = [row for model in ("base", "sft") for which in ("test", "gate") for row in rows(which, model)]
    forwards, backwards = (metrics(part, ["base", "sft"], "sft", {"retail": ()}, None, MAKER) for part in (found, found[::-1]))
    assert forwards == backwards


def test_fewer_than_four_trials_give_no_pass_4() -> None:
    said = everything(trials=2)
    assert said["evaluate"]["sft"]["retail"]["pass_4"] is None and said["evaluate"]["sft"]["retail"]["pass_1"]["trials"] == 2


def test_the_candidate_is_compared_with_every_other_model() -> None:
    found = [row for model in ("base", "sft") for which in ("test", "gate") for row in rows(which, model)]
    said = metrics(found, ["sft", "base"], "sft", {"retail": ()}, None, MAKER)
    assert set(said["paired"]) == {"sft-base"} and said["gate"]["reference"] is None


def test_lines_for_plots() -> None:
    said = everything()
    models = {line["model"]: line["mean"] for line in model_lines(said)}
    assert models == {"base": 0.25, "sft": 0.75, "oracle": 1.0, "do_nothing": 0.0}
    families = {(line["model"], line["family"]): line["mean"] for line in family_lines(said)}
    assert families["sft", "all"] == 0.75 and families["oracle", "one_write"] == 1.0 and families["base", "write"] == 0.0


def test_a_small_file_a_model_and_a_headline(tmp_path: Path) -> None:
    """By hand: sft 0.75 against base 0.25, its worst family is information with 2 of 4; the gate's problems are played alike, so that
    the difference is 0.5 there as well, of the two problems 1 and 0."""
    said = everything()
    write_figures(tmp_path, said, "sft")
    assert json.loads((tmp_path / "metrics.json").read_text()) == said
    assert model_figures(said["overall"]["sft"]) == {"pass_1": 0.75, "interval": "0.50-1.00", "pass_4": 0.5, "n": "2x4"}
    assert (tmp_path / "metrics/base.yaml").read_text().splitlines()[0] == "pass_1: 0.25"
    found = headline(said, "sft")
    assert found == {"passed": 0.75, "gain": 0.5, "worst": 0.5, "gate": said["gate"]["overall"]["paired"]["pass_1"]["low"]}
    assert parse_yaml((tmp_path / "headline.yaml").read_text(), "headline.yaml") == found
    assert not (tmp_path / "unseen.csv").exists()


def test_what_was_not_measured_is_not_in_the_headline() -> None:
    alone = metrics(rows("test", "sft", 2), ["sft"], "sft", {"retail": ()}, None, MAKER)
    assert set(headline(alone, "sft")) == {"passed", "worst"} and set(model_figures(alone["overall"]["sft"])) == {
        "pass_1",
        "interval",
        "n",
    }


@pytest.mark.parametrize("change", [lambda found: found[1:], lambda found: found + found[:4]])
def test_missing_or_double_trials_are_refused(change: Any) -> None:
    with pytest.raises(ValueError, match="every problem needs the same trials, each once"):
        tables(change(rows("test", "sft")))


def test_different_problems_are_not_paired() -> None:
    found = tables([*rows("test", "sft"), *[row for row in rows("test", "base") if row["problem_id"] == "p1"]])
    with pytest.raises(ValueError, match="the same problems"):
        MAKER.paired(found["test", "sft", "retail"], found["test", "base", "retail"], ())
