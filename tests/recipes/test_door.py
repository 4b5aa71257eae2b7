"""Recipes and the command: what is listed, refused, compared and printed.

By hand: treatment {new 0.7, old 0.2}, baseline {new 0.6, old 0.5}: +0.1 as claimed, -0.3 not; a control that wants regret lower and sees
0.01 - 0.04 = -0.03 has it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows import recipes
from flows.recipes import Claim, Control, Measured, __main__
from tasks.contract.params import BadInput, Params
from tests.conftest import ROOT
from tests.recipes.test_lt_sft import TOY
from tests.recipes.toys import quiet

CLAIM = Claim(
    statement="Treatment is better.",
    metrics=("new", "old"),
    treatment="a",
    baseline="b",
    controls=(Control("regret", "a", "b", "regret", "lower", must_hold=False),),
    direction="higher",
    nullable=True,
)
ARMS = {"a": {"new": 0.7, "old": 0.2, "regret": 0.01}, "b": {"new": 0.6, "old": 0.5, "regret": 0.04}}


def test_the_recipes_are_their_files() -> None:
    assert recipes.names() == ("apigen_mt", "breadcrumbs", "domain_adaptation", "lt_sft")


@pytest.mark.parametrize("slug", recipes.names())
def test_a_recipe_states_what_it_is(slug: str) -> None:
    recipe = recipes.load(slug)
    assert slug == recipe.SLUG and recipe.TITLE and recipe.PAPER.startswith("https://arxiv.org/abs/")
    assert "Departures:" in recipe.__doc__ and recipe.PAPER in recipe.__doc__
    assert issubclass(recipe.Params, Params) and isinstance(recipe.CLAIM, Claim)
    recipe.check(recipe.Params())
    for key, field in recipe.Params.model_fields.items():
        assert field.description, f"{slug}: param {key} has no description"


def test_differences_by_hand() -> None:
    found = recipes.differences(CLAIM, Measured(ARMS, [], {}))
    assert [(one.name, one.metric, round(one.value, 9), one.wanted) for one in found] == [
        ("claim", "new", 0.1, True),
        ("claim", "old", -0.3, False),
        ("regret", "regret", -0.03, True),
    ]


def test_a_recipe_that_leaves_out_what_its_claim_names_is_refused() -> None:
    without = {"a": ARMS["a"], "b": {"new": 0.6, "old": 0.5}}
    with pytest.raises(ValueError, match="names regret of arm 'b'"):
        recipes._check(CLAIM, Measured(without, [], {}), [])
    with pytest.raises(ValueError, match="a row lacks 'part'"):
        recipes._check(CLAIM, Measured(ARMS, [], {}), [{"recipe": "x", "seed": 0}])


def test_an_unknown_recipe_and_a_seed_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no recipe 'breadcrumb'\. Did you mean 'breadcrumbs'"):
        recipes.load("breadcrumb")
    with pytest.raises(BadInput, match=r"seed = -1\. Allowed: 0 to 2147483647"):
        recipes.measure("lt_sft", -1, {}, tmp_path / "out", quiet)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file; results go to a folder"):
        recipes.measure("lt_sft", 0, {}, tmp_path / "file", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--list"]) == 0
    said = capsys.readouterr().out
    for slug in recipes.names():
        assert slug in said and recipes.load(slug).CLAIM.statement in said


def test_the_command_measures_and_says_where_the_rows_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {**TOY, "base_steps": 3, "full_steps": 2, "sparse_steps": 2, "sweep": []}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert __main__.main(["lt_sft", "--seed", "4", "--out", str(tmp_path / "out"), *sets]) == 0
    said = capsys.readouterr().out
    for word in ("dense_long", "random_mask", "claim: lt_sft - dense, new:", "NOT SOUND: the base reaches 0.95", "rows.parquet"):
        assert word in said
    assert (tmp_path / "out" / recipes.ROWS).is_file()


def test_a_mistake_of_the_users_ends_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "flows.recipes", "lt_sft", "--set", "densty=0.1"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 2 and "Traceback" not in answer.stderr
    assert "cairn: recipe lt_sft: unknown key 'densty'. Did you mean 'density'?" in answer.stderr


def test_without_a_name_the_command_says_the_names() -> None:
    with pytest.raises(BadInput, match="name a recipe: apigen_mt, breadcrumbs, domain_adaptation, lt_sft"):
        __main__.main([])
