"""What Prefect's UI shows of a run that is over, as tables and Markdown: figures, gates, conversations, curves, where everything lies.

Pure functions of what the report shows (`flows.report.page`); each gives None where the run has nothing of the kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.conversation_text import conversation_lines, cut
from flows.markdown_text import cell, code, heading, table
from flows.report.pictures import data_url
from flows.report.reading import two
from flows.report.scores import worlds_of
from flows.report.talks import LOST, WON
from tasks.engine.dotted import leaves
from tasks.worlds import UNSEEN

Report = Mapping[str, Any]
"""What the report shows."""
EACH, LINES, LETTERS = 3, 40, 400
"""Conversations won and lost, lines of each, characters of a message; ours: a page of Prefect's UI."""
FIGURES = 60
"""Numbers of a gate; ours."""
PICTURES = 300_000
"""Characters of all pictures together, which Prefect keeps in its database; ours."""


@dataclass(frozen=True)
class Text:
    """One artifact. kind: table or markdown, as Prefect calls them. data: what it holds. about: its description, in Markdown."""

    kind: str
    data: str
    about: str


def pass_k(report: Report) -> Text | None:
    """A row for each model and baseline, and for the champion; a column for each world and k."""
    summary = report["summary"]
    parts = [(part, mark) for part, mark in ((summary, ""), (summary.get(UNSEEN) or {}, f" ({UNSEEN})")) if part.get("evaluate")]
    if not parts:
        return None
    rows: dict[str, dict[str, str]] = {}
    sizes = []
    for part, mark in parts:
        for world in worlds_of(part):
            players = {model: part["evaluate"][model][world] for model in report["models"] if model in part["evaluate"]}
            first = next(iter(players.values()))["pass_1"]
            sizes.append(f"{cell(world)}{mark}: {first['n']} problems, {first['trials']} trials each")
            players |= {name: block for name, block in part["baselines"].get(world, {}).items() if not name.startswith("always_")}
            for name, block in players.items():
                rows.setdefault(name, {"model": literal(name)}).update(_estimates(f"{world}{mark}", block))
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    for one in summary.get("champions") or []:
        _add_champion(rows, one, report["headline"]["candidate"])
    simulated = " The customer is a script (*simulated roles*)." if report["roles"]["scripted"] else ""
    about = (
        f"pass^k: the share of held-out test problems that a model solves in all of k trials, with its 95 % interval, "
        f"which resamples problems. {'; '.join(sizes)}; the baselines `constant`, `do_nothing` and `oracle` play each once. "
        f"Trained once, with seed {summary.get('seed')}.{simulated} A champion of another run stands there as its own evaluation "
        f"found it. {_run(report)}"
    )
    return Text("table", json.dumps([{name: row.get(name, "") for name in columns} for row in rows.values()]), about)


def _add_champion(rows: dict[str, dict[str, str]], one: Mapping[str, Any], candidate: str) -> None:
    """Give a champion (of `champion_rows`) a row of its own, or mark the candidate's where it is the one."""
    if "unknown" in one:
        rows["champion"] = {"model": literal(f"champion not known: {one['unknown']}")}
        return
    who = literal(f"champion version {one['version']}, since {one['when']}, commit {one['commit'][:10] or 'unknown'}")
    if one["own"]:
        rows[candidate]["model"] += f" ({who})"
        return
    rows[f"champion {one['version']}"] = {"model": who}
    for world, block in one["evaluate"].items():
        rows[f"champion {one['version']}"].update(_estimates(world, block))


def _estimates(world: str, block: Mapping[str, Any]) -> dict[str, str]:
    return {f"{literal(world)} {power.replace('_', '^')}": _estimate(block[power]) for power in _powers(block)}


def _powers(block: Mapping[str, Any]) -> list[str]:
    return [name for name in block if name.startswith("pass_")]


def _estimate(one: Mapping[str, Any] | None) -> str:
    return f"{two(one['mean'])} ({two(one['low'])} to {two(one['high'])})" if one else ""


def gates(report: Report, params: Mapping[str, Any]) -> Text | None:
    """A line for each gate: whether it holds, in words, and the numbers that it went by. params: of the decision, its thresholds."""
    headline = report["headline"]
    if not headline["gates"]:
        return None
    rows = [
        (gate["name"], "yes" if gate["passed"] else "NO", str(gate.get("explanation", "")), _numbers(gate.get("figures") or {}))
        for gate in headline["gates"]
    ]
    thresholds = [f"- {cell(name)}: {cell(_number(value))}" for name, value in leaves(dict(params))]
    lines = table(("gate", "holds", "in words", "numbers"), rows)
    about = f"**{cell(headline['title'])}.** {cell(headline['reason'])} {_run(report)}"
    return Text("markdown", "\n".join([*lines, *heading("Thresholds, params of the decision"), *thresholds]), about)


def _numbers(figures: Mapping[str, Any]) -> str:
    found = [f"{name} {_number(value)}" for name, value in leaves(figures)]
    more = [f"and {len(found) - FIGURES} more in decision.json"] if len(found) > FIGURES else []
    return ", ".join([*found[:FIGURES], *more])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def conversations(report: Report) -> Text | None:
    """Three test conversations that the candidate won, and three that it lost."""
    candidate = report["headline"]["candidate"]
    found = [talk for talk in report["conversations"] if talk["agent"] == candidate]
    if not found or "evaluate" not in report["summary"]:
        return None
    piles = {pile: [talk for talk in found if talk["pile"] == pile][:EACH] for pile in (WON, LOST)}
    lines = [line for pile, talks in piles.items() for line in _pile(pile, talks)]
    about = (
        f"Test conversations of {cell(candidate)}: {len(piles[WON])} {WON}, {len(piles[LOST])} {LOST}, "
        f"chosen by rule: families and worlds take turns, each giving its conversation of median length. A message is cut after "
        f"{LETTERS} characters, a conversation after {LINES} lines; the report has more of them, whole. {_run(report)}"
    )
    return Text("markdown", "\n".join(lines).strip(), about)


def _pile(pile: str, talks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not talks:
        yield from heading(f"There is none that it {pile}")
    for number, talk in enumerate(talks, 1):
        yield from heading(f"{pile.capitalize()}, {number} of {len(talks)}")
        yield from conversation_lines(talk, LINES, LETTERS)
        marks = ", ".join(f"{name} {'right' if talk[name] else 'WRONG'}" for name in ("state", "outputs", "required"))
        rules = "; ".join(f"{cell(rule)} ({cell(text)})" if text else cell(rule) for rule, text in talk["broken"])
        yield f"\nGraded: {marks}, policy {two(talk['policy'])}{f', rules broken: {rules}' if rules else ''}."
        if not talk["reward"] and talk["expected_calls"]:
            calls = [f"{cut(call['name'], LETTERS)}({cut(call['arguments'], LETTERS)})" for call in talk["expected_calls"]]
            yield f"\nWhat {talk['by']} did: {'; '.join(calls)}."


def curves(report: Report) -> Text | None:
    """A picture for each training: loss or reward, step by step."""
    charts = [(one["title"], one["chart"]) for one in report["learning"] if one["chart"]]
    if not charts:
        return None
    lines: list[str] = []
    left_out = []
    for title, chart in charts:
        picture = f"![{cell(title)}]({data_url(chart)})"
        if sum(map(len, lines)) + len(picture) > PICTURES:
            left_out.append(title)
        else:
            lines += [*heading(cell(title)), picture]
    more = f" Left out for their size: {cell(', '.join(left_out))}; the report has them." if left_out else ""
    return Text("markdown", "\n".join(lines).strip(), f"What the trainings logged. The report has further curves.{more} {_run(report)}")


def links(report: Report, places: Sequence[tuple[str, str]]) -> Text:
    """Where the report, the run in MLflow and the data are. places: (what, where: a URL, else a path or a command)."""
    lines = [f"| {cell(what)} | {f'[{cell(where)}]({where})' if where.startswith('http') else code(where)} |" for what, where in places]
    about = f"Paths are on the machine that ran it. {_run(report)}"
    return Text("markdown", "\n".join([*table(("what", "where"), []), *lines]), about)


def _run(report: Report) -> str:
    summary = report["summary"]
    kind = "experiment" if summary.get("experiment") else "run"
    return f"{kind.capitalize()} {code(str(summary.get('run')))} of the profile {cell(str(summary.get('profile')))}."


def literal(text: str) -> str:
    """Text for a cell of a table, which one of Prefect's two UIs takes for Markdown and the other does not: nothing can be escaped.

    >>> literal("<b> [a](http://b) `c`")
    '‹b> [a] (http: //b) ´c´'
    """
    for old, new in (("<", "‹"), ("`", "´"), ("](", "] ("), ("://", ": //"), ("www.", "www .")):
        text = text.replace(old, new)
    return " ".join(text.split())
