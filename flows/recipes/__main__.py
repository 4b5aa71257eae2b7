"""`python -m flows.recipes SLUG --seed 0`: measure one seed of one recipe, and say what came out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import PROJECT, recipes
from flows.console import showing_progress
from flows.exit_codes import guarded
from tasks.contract.params import BadInput
from tasks.engine.dotted import parse_override


def parser() -> argparse.ArgumentParser:
    """The command and its help."""
    found = argparse.ArgumentParser(prog="python -m flows.recipes", description="Measure one seed of one paper's claim in miniature.")
    found.add_argument("slug", nargs="?", default="", help="the recipe")
    found.add_argument("--list", action="store_true", help="list the recipes and their claims")
    found.add_argument("--seed", type=int, default=0, help="root of every random stream")
    found.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a param")
    found.add_argument("--out", type=Path, default=None, metavar="FOLDER", help="where rows go (default: reports/recipes/SLUG/seed_N)")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    asked = parser().parse_args(arguments)
    if asked.list:
        _list()
        return 0
    if not asked.slug:
        raise BadInput(f"name a recipe: {', '.join(recipes.names())}; or --list")
    recipe = recipes.load(asked.slug)
    out: Path = asked.out or PROJECT / "reports" / "recipes" / asked.slug / f"seed_{asked.seed}"
    start = time.monotonic()
    with showing_progress(asked.slug) as progress:
        measured = recipes.measure(asked.slug, asked.seed, dict(parse_override(text) for text in asked.set), out, progress)
    _say(recipe.CLAIM, measured)
    print(f"{len(measured.rows)} rows in {out / recipes.ROWS}, figures in {out / recipes.FIGURES}; {time.monotonic() - start:.0f} s")
    return 0


def _list() -> None:
    for slug in recipes.names():
        recipe = recipes.load(slug)
        print(f"{slug:<20} {recipe.TITLE}  {recipe.PAPER}\n{'':<20} {recipe.CLAIM.statement}")


def _say(claim: recipes.Claim, measured: recipes.Measured) -> None:
    print(claim.statement)
    for arm, values in measured.arms.items():
        print(f"  {arm:<26} {_values(values)}")
    print("one seed; differences:")
    for one in recipes.differences(claim, measured):
        sign = "as claimed" if one.wanted else "not as claimed"
        print(f"  {one.name}: {one.treatment} - {one.baseline}, {one.metric}: {one.value:+.4f} ({sign})")
    for what, is_so in measured.sound.items():
        print(f"  {'sound' if is_so else 'NOT SOUND'}: {what}")


def _values(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(guarded(main))
