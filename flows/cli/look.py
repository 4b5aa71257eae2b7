"""`cairn status`, `forecast`, `experiments`, `methods`, `preview`: they change nothing that counts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import group, values
from flows.cli.output import print_json
from tasks.road import ROAD

app = group.app()


@app.command(cls=group.Command)
def status(
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every cached byte instead of trusting size, time and inode (slower).")
    ] = False,
    as_json: values.AsJson = False,
) -> int:
    """A dry run of the workspace, whether DVC agrees, and the settings that are inherited from the environment and from files.

    Examples:
      cairn status
      cairn status --json | jq '.stages[] | select(.cached | not) | .stage'
    """
    from flows.moved_alias import told_of_alias
    from flows.road import behind
    from flows.run import open_plan
    from flows.summary_text import step_lines, step_records
    from flows.survey import survey

    plan = open_plan()
    steps = survey(plan, verify)
    done = {step.stage: step.artifact for step in steps if step.artifact}
    late = behind(plan, done, {step.stage: step.job for step in steps if step.artifact and step.job})
    if as_json:
        alias = told_of_alias(plan) or None
        print_json({"stages": step_records(steps), "dvc_lock_behind": late, "alias_moved": alias, "inherited": _inherited()})
        return 0
    print("\n".join(step_lines(steps)))
    print(f"dvc.lock is behind for {', '.join(late)}" if late else "dvc.lock agrees" if done else "nothing is cached yet")
    if moved := told_of_alias(plan):
        print(moved)
    _print_inherited()
    return 0


def _inherited() -> list[dict[str, Any]]:
    from flows import PROJECT
    from flows.inherited import printable
    from flows.inherited_config import everything

    found = everything(PROJECT)
    return [{"name": one.name, "value": printable(one.name, one.value), "origin": one.origin, "effect": one.effect} for one in found]


def _print_inherited() -> None:
    from flows import PROJECT
    from flows.inherited_config import NONE, everything

    found = everything(PROJECT)
    print("\ninherited settings:" if found else f"\n{NONE}")
    for one in found:
        print(f"  {one}")


@app.command(cls=group.Command)
def forecast(
    profile: values.Profile = "",
    overrides: values.Overrides = None,
    model: Annotated[
        str, typer.Option(metavar="CHECKPOINT", help="Forecast a profile as `cairn use PROFILE --model CHECKPOINT` would fill it in.")
    ] = "",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure how fast this machine trains and produces, some minutes; kept in .cairn/.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Beside the forecast as it was before: what each stage took when it last ran here.")
    ] = False,
    as_json: values.AsJson = False,
) -> int:
    """GPU and host memory by part, tokens and hours of each stage that computes with checkpoints, from the params and the model's
    config.json. It ends with 2 when a stage needs more memory than there is, and says what to lower.

    Examples:
      cairn forecast
      cairn forecast --profile quickstart --set sft.loop.batch_tokens=8192
      cairn forecast --profile gpu_24g --model CHECKPOINT
      cairn forecast --calibrate --json
      cairn forecast --compare
    """
    from flows.forecast import forecast as made
    from flows.forecast.text import as_document, lines, too_large

    found = made(profile, values.parsed(overrides), calibrate, model, compare)
    if as_json:
        print_json(as_document(found))
    else:
        print("\n".join(lines(found)))
    return 2 if too_large(found) else 0


@app.command(cls=group.Command)
def experiments(
    column: Annotated[
        list[str] | None,
        typer.Option("--column", "-c", help="What to show, once for each: a figure or a param by its name, such as sft.loop.epochs."),
    ] = None,
    all_commits: Annotated[bool, typer.Option("--all-commits", help="Those of all commits, not of the present one alone.")] = False,
    as_json: values.AsJson = False,
) -> int:
    """DVC's experiments (`dvc exp run`, `dvc exp save`) as a table and as a chart in reports/experiments.html.

    Without --column: the figures of reports/headline.yaml, and the params in which the experiments differ.

    Examples:
      cairn experiments
      cairn experiments -c passed -c merged.pass_4 -c sft.loop.epochs
    """
    from flows import PROJECT
    from flows.experiments import choose, draw, lines, read

    found = read(PROJECT, all_commits)
    columns = choose(found, column or ())
    if as_json:
        print_json([{"experiment": one.name, "created": one.created, **{name: one.value(name) for name in columns}} for one in found])
        return 0
    print("\n".join(lines(found, columns)))
    print(draw(PROJECT, found, columns))
    return 0


@app.command(cls=group.Command)
def methods(
    room: Annotated[str, typer.Argument(metavar="[ROOM]", help="This room's alone (default: all).", **values.one_of(ROAD.rooms))] = "",
    as_json: values.AsJson = False,
) -> int:
    """A method's name is an address: merge.method: breadcrumbs in the params is tasks/merge/breadcrumbs.py.

    Examples:
      cairn methods
      cairn methods merge
    """
    from dataclasses import asdict

    from tasks.engine.methods import everything

    found = [one for one in everything() if room in ("", one.room)]
    if as_json:
        print_json([asdict(one) for one in found])
        return 0
    for one in found:
        print(f"{one.room:<9} {one.name:<20} {one.title}{'  ' + one.paper if one.paper else ''}")
    return 0


@app.command(cls=group.Command)
def preview(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE",
            help=f"The stage to look at: what generates has a preview ({', '.join(ROAD.entering('generate'))}).",
            **values.one_of(ROAD.entering("generate")),
        ),
    ],
    count: Annotated[int, typer.Option("-n", metavar="N", help="Blueprints, 1 to 100, shared evenly among the worlds.")] = 5,
    profile: values.Profile = "",
    overrides: values.Overrides = None,
    as_json: values.AsJson = False,
) -> int:
    """Before anybody pays for the rest: each attempt at a blueprint with its checks, votes and diff, then the
    conversations, and what a thousand problems may cost. With the same params these are the blueprints with which a
    run begins.

    Examples:
      cairn preview generate -n 5
      cairn preview generate -n 2 --set roles.generator.model=another
    """
    from flows.model_checks import Asking
    from flows.preview import as_document, make_watched, show
    from flows.run import open_plan

    plan = open_plan(profile, values.parsed(overrides))
    made = make_watched(Asking(accept=True).before(plan, [stage]), stage, count)
    if as_json:
        print_json(as_document(made))
    else:
        show(made)
    return 0
