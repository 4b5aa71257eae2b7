"""The report: one self-contained HTML page of a run, for people. A view: rendered from artifacts, read by nothing.

`render` gathers what is there (any stage may be missing), draws it as inline SVG and fills `page.html.jinja`, in which everything
is escaped. The page loads nothing and runs no script. Cost: about 0.3 s for 2,000 trials.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flows.model_names import left_by, place
from flows.report.costs import cost, roles, stages
from flows.report.pictures import style
from flows.report.reading import Folders, Summary, colours, duration, read_json, two
from flows.report.rooms import blueprints, critique, learning, merge_map, waterfall
from flows.report.scores import champion_table, families, gains, headline, ladders, passive, with_unseen
from flows.report.talks import conversations
from tasks.engine.files import write_text
from tasks.road import ROAD, Road, Step
from tasks.worlds import GRADED_WITHOUT_STATE, NOT_COMPARED

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render(target: Path, summary: Summary, folders: Folders, road: Road = ROAD) -> dict[str, Any]:
    """Write the report to `target` and return what it shows (see `page`). summary: what reports/summary.json holds. folders: stage ->
    its artifact's folder.

    The same summary and artifacts give the same bytes.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(duration=duration, count=lambda value: f"{value:,}", two=two)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = page(summary, folders, road)
    write_text(target, template.render(shown, style=Markup(style())))
    return shown


def page(summary: Summary, folders: Folders, road: Road = ROAD) -> dict[str, Any]:
    """Everything the template shows; a section without material is empty."""
    models = sorted(summary.get("evaluate") or {}, key=lambda model: place(model, road))
    kinds = colours(models, road)
    decision = read_json(folders, road.decision, "decision.json")
    own = [model for model in models if left_by(model, road)]
    candidate = (summary.get("gate") or {}).get("candidate") or (own[-1] if own else "")
    return {
        "summary": summary,
        "headline": headline(summary, decision, candidate, road),
        "models": models,
        "blind": {"worlds": summary.get(NOT_COMPARED) or [], "words": GRADED_WITHOUT_STATE},
        "kinds": kinds,
        "ladders": with_unseen(lambda one: ladders(one, models, kinds), summary),
        "passive": passive(summary, models),
        "made": {"date": "", "commit": "", "changed": "", **(summary.get("made") or {})},
        "champions": champion_table(summary, candidate),
        "gains": with_unseen(lambda one: gains(one, kinds, road), summary),
        "families": with_unseen(lambda one: families(one, models), summary),
        "differs": summary.get("differs") or {"with": "", "params": []},
        "stages": stages(summary, road),
        "learning": learning(folders, road),
        "blueprints": _some(blueprints(folders, name) for name in road.entering("generate")),
        "critique": _some(critique(folders, name, _played_by(road[name], road)) for name in road.entering("critique")),
        "waterfall": _some(waterfall(folders, name) for name in road.entering("filter")),
        "merge": _some(merge_map(folders, name, kinds) for name in road.entering("merge")),
        "cost": cost(summary, folders, road),
        "roles": roles(summary, folders, road),
        "conversations": conversations(folders, candidate, road),
    }


def _some(sections: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [section for section in sections if section]


def _played_by(step: Step, road: Road) -> str:
    """The step whose conversations a step judges."""
    return next((name for name in step.inputs if road[name].room == "generate"), "")
