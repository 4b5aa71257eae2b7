"""reports/summary.json and the survey of a run as text: one line a stage, one a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.model_names import place
from tasks.contract.problem import PASSIVE
from tasks.worlds import GRADED_WITHOUT_STATE, NOT_COMPARED, UNSEEN

if TYPE_CHECKING:
    from flows.survey import Outlook


def step_lines(steps: Sequence[Outlook]) -> Iterator[str]:
    """Each stage: cached, or would run and why; and where it is known the params that differ from its last result, one a line."""
    for step in steps:
        if step.artifact:
            yield f"{step.stage:<9} cached     {step.artifact.identity[:12]}"
        else:
            yield f"{step.stage:<9} would run  {'; '.join(step.reasons[:6])}"
        yield from (f"{'':<9}   {one}" for one in step.differs)


def step_records(steps: Sequence[Outlook]) -> list[dict[str, Any]]:
    """The same for scripts: stage, cached (whether its result is there), artifact (its identity or null), reasons to run, params that
    differ from its last result (a dry run alone looks at them)."""
    return [
        {
            "stage": step.stage,
            "cached": step.artifact is not None,
            "artifact": step.artifact.identity if step.artifact else None,
            "reasons": list(step.reasons),
            "params": [{"name": one.name, "old": one.old, "new": one.new} for one in step.differs],
        }
        for step in steps
    ]


def print_summary(path: Path) -> None:
    """A run's summary.json: stages, models, the promotion, and where the report is."""
    print("\n".join(summary_lines(json.loads(path.read_text()), path.with_name("report.html"))))


def summary_lines(summary: Mapping[str, Any], report: Path) -> Iterator[str]:
    """A run's summary as lines. report: the path of its page."""
    yield f"\n{'stage':<9} {'method':<20} {'seconds':>8}  artifact"
    for name, stage in summary["stages"].items():
        seconds = "" if stage["seconds"] is None else f"{stage['seconds']:.1f}"
        yield f"{name:<9} {stage['method']:<20} {seconds:>8}  {stage['artifact'][:12]}{'  cached' if stage['cached'] else ''}"
    if "evaluate" in summary:
        yield from _models(summary["evaluate"], (summary.get(UNSEEN) or {}).get("evaluate", {}))
        yield from _passive((summary.get(PASSIVE) or {}).get("evaluate", {}))
    for world in summary.get(NOT_COMPARED, ()):
        yield f"{world}: {GRADED_WITHOUT_STATE}"
    if served := summary.get("as_served"):
        yield (
            f"as served, {served['candidate']}: {_cell(served['as_served'])}, as evaluated {_cell(served['evaluated'])}; "
            f"{served['alike']} of {served['conversations']} conversations the same token for token"
        )
    promotion = summary["promotion"]
    if promotion["decision"]:
        yield f"\n{promotion['outcome']}: {promotion['reason']}"
    yield f"report: {report.relative_to(Path.cwd()) if report.is_relative_to(Path.cwd()) else report}"


def _models(evaluate: Mapping[str, Mapping[str, Any]], unseen: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """pass^1 of each model in each world, at the right in those that no training saw."""
    columns = [(part, world) for part in (evaluate, unseen) for world in sorted({world for model in part.values() for world in model})]
    yield f"\n{'pass^1':<15}" + "".join(f"{f'{world} ({UNSEEN})' if part is unseen else world:>26}" for part, world in columns)
    for model in sorted(evaluate, key=place):
        cells = [_cell(part.get(model, {}).get(world, {}).get("pass_1")) for part, world in columns]
        yield f"{model:<15}" + "".join(f"{cell:>26}" for cell in cells)
    yield "(mean, 95 % interval over problems; simulated roles)"


def _passive(evaluate: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What each model does in problems that doing nothing solves, a line a world."""
    for world in sorted({world for model in evaluate.values() for world in model}):
        figures = {model: evaluate[model][world]["pass_1"] for model in sorted(evaluate, key=place) if world in evaluate[model]}
        count = next(iter(figures.values()))["n"]
        told = ", ".join(f"{model} {_cell(figure)}" for model, figure in figures.items())
        yield f"{world}, {count} passive problems, apart and in no gate (doing nothing solves them): {told}"


def _cell(figure: Mapping[str, Any] | None) -> str:
    return f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]" if figure else "-"
