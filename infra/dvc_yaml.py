"""The generated parts of dvc.yaml, its stages and plots, from the road (tasks/road.py) and its rooms' interfaces. `make docs`
writes them, a test compares them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.exit_codes import guarded
from tasks.engine import methods
from tasks.engine.closure import covered, to_list
from tasks.players.roles import folders
from tasks.road import ROAD, Road, Step

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "dvc.yaml"


def current(text: str, road: Road = ROAD) -> str:
    """dvc.yaml's text with its generated parts made anew. SystemExit when a part is missing."""
    for name, lines in (("stages", stages(road)), ("plots", plots(road))):
        pattern = re.compile(rf"(  # {name}: generated[^\n]*\n).*?(  # end\n)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"dvc.yaml has no part '# {name}: generated' to '# end'")
        made = "\n".join(lines)
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)  # type: ignore[misc]
    return text


def stages(road: Road) -> Iterator[str]:
    """The lines of all stages."""
    for number, step in enumerate(road):
        yield from ([""] if number else [])
        yield from stage(step)


def stage(step: Step) -> Iterator[str]:
    """The lines of one stage."""
    yield f"  {step.name}:"
    yield f"    desc: {step.summary}"
    yield f"    cmd: python -m flows.stage {step.name}"
    yield from _list("deps", deps(step))
    roles = _stated(step, "ROLES")
    yield "    params:"
    yield from _params("params/pipeline.yaml", ["seed", *_stated(step, "READS"), *(f"roles.{role}" for role in roles), step.name])
    if roles:
        yield from _params("params/roles.lock", roles)
    for file in (*_stated(step, "PARAMS"), "params/versions.yaml"):
        yield from _params(file)
    yield from _list("outs", [f"data/{step.name}"])
    if metrics := _stated(step, "METRICS"):
        yield from _list("metrics", [metrics_path(step, name) for name in metrics])


def deps(step: Step) -> list[str]:
    """What a stage depends on: its inputs, files that people edit, code.

    Code is what the room's methods reach by imports, file by file; its own core/, the parts of the method that is chosen and the
    folders in its CODE are named whole, with the texts that lie in them. What data/worlds carries the hash of is not listed, and what
    a folder covers not again.
    """
    room, roles = f"tasks/{step.room}", _stated(step, "ROLES")
    whole = [*_stated(step, "CODE"), *([f"{room}/core"] if (ROOT / room / "core/__init__.py").is_file() else [])]
    files = [path for path in to_list(ROOT, step.room, roles, "worlds" in _stated(step, "INPUTS")) if not covered(path, whole)]
    chosen = [folder for role in roles for folder in folders(role, f"${{roles.{role}.backend}}")]
    if methods.plays(step.room):
        chosen.append(f"tasks/agents/${{{step.name}.agents.method}}.py")
    if methods.plays(step.room) == "checkpoints":
        chosen.append(f"{methods.ENGINES.replace('.', '/')}/${{{step.name}.engine.method}}")
    if methods.plays_as_served(step.room):
        chosen.append(f"{methods.SERVINGS.replace('.', '/')}/${{{step.name}.as_served.method}}")
    if not covered(room, whole):
        chosen.append(f"{room}/${{{step.name}.method}}.py")
    if parts := methods.parts(step.room, f"${{{step.name}.method}}"):
        chosen.append(parts)
    return [*(f"data/{name}" for name in step.inputs), *_stated(step, "FILES"), *sorted([*files, *whole]), *chosen]


def metrics_path(step: Step, name: str) -> str:
    """Where metrics of a step stand for DVC: in reports/, those of a step with a name of its own in a folder of that name."""
    return f"reports/{name}" if step.name == step.room else f"reports/{step.name}/{name}"


def plots(road: Road) -> Iterator[str]:
    """The lines of all plots: of each step what its room's interface says."""
    for step in road:
        for about in getattr(methods.interface(step.room), "PLOTS", ()):
            yield from _plot(step, about)


def _plot(step: Step, plot: Mapping[str, Any]) -> Iterator[str]:
    """plot: `title` and `file` (or `folder`), then what DVC knows: x, y, template."""
    path = f"data/{step.name}/{plot['file']}"
    yield f"  - {step.name} {plot['title']}:"
    if "template" in plot:
        yield f"      template: {plot['template']}"
    yield f"      x: {plot['x']}"
    yield f"      y: {{{path}: {_inline(plot['y'])}}}"


def _inline(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else json.dumps(list(value)).replace('"', "")


def _stated(step: Step, name: str) -> Sequence[str]:
    """What the interface of a step's room says under a name."""
    return getattr(methods.interface(step.room), name, ())


def _list(name: str, values: Sequence[str]) -> Iterator[str]:
    yield f"    {name}:"
    yield from (f"      - {value}" for value in values)


def _params(file: str, keys: Sequence[str] = ()) -> Iterator[str]:
    yield f"      - {file}:"
    yield from (f"          - {key}" for key in keys)


def main() -> int:
    """Write the generated parts of dvc.yaml anew."""
    FILE.write_text(current(FILE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
