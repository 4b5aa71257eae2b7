"""`cairn merge`: any checkpoints, one recipe, one method of the merge room; beside the road, with nothing promoted or cached.

The recipe is a YAML file:

    method: breadcrumbs
    base: checkpoints/instruct            # or artifact:<identity>, models:/<name>/<version>, models:/<name>@<alias>
    experts: {code: checkpoints/code, chat: artifact:0123...dir/model}
    params: {keep: 0.1, trim_top: 0.01, alpha: 0.4}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows import OUTSIDE, PROJECT, STATE
from flows.console import showing_progress
from flows.short_identities import completed
from tasks.contract.context import Context
from tasks.contract.params import BadInput, nearest, read_yaml, validate
from tasks.engine import methods
from tasks.engine.artifact import Store
from tasks.engine.checkpoint_names import FORMS, checkpoint
from tasks.engine.dotted import leaves

ROOM = "merge"


class Recipe(BaseModel):
    """What a recipe file may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="a method of the merge room")
    base: str = Field(description=FORMS)
    experts: dict[str, str] = Field(min_length=1, description=f"name: {FORMS}")
    params: dict[str, Any] = Field({}, description="the method's params; what the active params say of it does not count here")


def merge_by_recipe(path: Path, out: Path, overrides: Mapping[str, Any], threads: int = 0) -> dict[str, Any]:
    """Merge as the recipe says into the folder `out`, which must not exist; returns the figures. threads: 0 means all cores."""
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    given = read_yaml(path, lenient=True)
    if not isinstance(given, dict):
        raise BadInput(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    own = given.get("params") or {}
    recipe = validate(Recipe, {**given, "params": {**own, **overrides} if isinstance(own, dict) else own}, str(path))
    if recipe.method not in methods.names(ROOM):
        known = methods.names(ROOM)
        raise BadInput(f"{path}: method {recipe.method!r}: no such method.{nearest(recipe.method, known)} Methods: {', '.join(known)}.")
    if out.exists():
        raise BadInput(f"{out} exists; name a folder that does not")
    module = methods.load(ROOM, recipe.method)
    params = validate(module.Params, recipe.params, f"{path}: params")
    methods.check(module, params, f"{path}: params")
    store = Store(STATE)
    named = {text: checkpoint(completed(text, PROJECT, store), PROJECT, store) for text in (recipe.base, *recipe.experts.values())}
    inputs = module.Inputs(base=named[recipe.base], experts={name: named[text] for name, text in recipe.experts.items()})
    scratch = out.resolve().with_name(f".{out.name}.merging")  # beside it, so that the last step is a rename; a killed merge goes on
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "out").mkdir(parents=True)
    with showing_progress(ROOM) as progress:
        ctx = Context(seed=0, out=scratch / "out", scratch=scratch, threads=threads or len(os.sched_getaffinity(0)), progress=progress)
        try:
            figures: dict[str, Any] = module.run(inputs, params, ctx)
        except BadInput:
            shutil.rmtree(scratch)
            raise
    (scratch / "out" / "report.parquet").replace(scratch / "out" / "model" / "merge_report.parquet")
    os.replace(scratch / "out" / "model", out)
    shutil.rmtree(scratch)
    return figures


def figure_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """What was merged, for a person: sizes, one line an expert, then whatever else the method tells."""
    yield f"{figures['tensors']} tensors ({figures['copied']} copied), {figures['parameters']:,} parameters"
    width = max(map(len, figures["experts"]))
    yield f"\n{'expert':<{width}}  {'moved':>8}  {'entries kept':>12}  {'norm kept':>9}"
    for name, one in figures["experts"].items():
        norm = one["masked_l2"] / (one["delta_l2"] or 1)
        note = "  does not differ from the base" if one["unchanged"] else ""
        yield f"{name:<{width}}  {one['relative_delta']:>8.2%}  {one['kept_frac']:>12.1%}  {norm:>9.1%}{note}"
    yield "(moved: norm of the difference to the base, in percent of the base's norm)"
    more = {name: value for name, value in figures.items() if name not in ("tensors", "copied", "parameters", "experts", "notes")}
    rows = [(name, _text(value)) for name, value in leaves(more)]
    if rows:
        width = max(len(name) for name, _ in rows)
        yield ""
        yield from (f"{name:<{width}}  {value}" for name, value in rows)
    for note in figures.get("notes", ()):
        yield f"note: {note}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
