"""`cairn run`, `stage`, `accept`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import group, values
from flows.cli.output import print_json
from tasks.road import ROAD

if TYPE_CHECKING:
    from flows.launch import Wish

app = group.app()

REFRESH = "--refresh"
PART, LOOK = "Which stages", "Look first, run nothing"
"""Panels of the help."""


class Run(group.Command):
    """`--refresh` takes any number of stages, none included, as `--refresh sft rl` or `--refresh`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write each stage after --refresh with an option of its own; --refresh alone gets an empty one."""
        given: list[str] = []
        after = False
        for place, arg in enumerate(args):
            if arg == REFRESH:
                after = True
                if place + 1 == len(args) or args[place + 1].startswith("-"):
                    given.append(f"{REFRESH}=")
            elif after and not arg.startswith("-"):
                given.append(f"{REFRESH}={arg}")
            else:
                after = False
                given.append(arg)
        return super().parse_args(ctx, args if ctx.resilient_parsing else given)


@app.command(cls=Run)
def run(
    profile: values.Profile = "",
    overrides: values.Overrides = None,
    first: Annotated[
        str,
        typer.Option("--from", metavar="STAGE", autocompletion=values.stages, help="First stage that may run.", rich_help_panel=PART),
    ] = ROAD.names[0],
    last: Annotated[
        str, typer.Option("--to", metavar="STAGE", autocompletion=values.stages, help="Last stage to run.", rich_help_panel=PART)
    ] = ROAD.names[-1],
    only: Annotated[
        str, typer.Option("--only", metavar="STAGE", autocompletion=values.stages, help="This stage alone.", rich_help_panel=PART)
    ] = "",
    refresh: Annotated[
        list[str] | None,
        typer.Option(
            REFRESH,
            metavar="[STAGE...]",
            autocompletion=values.stages,
            help="Compute again though cached: the stages named, or all that run.",
            rich_help_panel=PART,
        ),
    ] = None,
    refresh_models: Annotated[
        bool, typer.Option("--refresh-models", help="Take another model behind a server than params/roles.lock has noted.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and why, and what a run would refuse.", rich_help_panel=LOOK)
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what its calls to model servers may cost.", rich_help_panel=LOOK)
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every cached byte instead of trusting size, time and inode (slower).")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run or --estimate: print one JSON document, for scripts.", rich_help_panel=LOOK)
    ] = False,
) -> int:
    """Every stage is cached by all it depends on: code, params, inputs. With --profile or --set it is an experiment:
    reported under reports/runs/ID/, while params/, data/ and dvc.lock stay as they are.

    Examples:
      cairn run                          the whole road
      cairn run --dry-run                what would run, and which part of its key changed
      cairn run --to filter              a part of the road: --from, --to, --only
      cairn run --set sft.loop.epochs=2   an experiment
      cairn run --profile smoke          an experiment with a whole profile
      cairn run --refresh sft rl         compute these again
      cairn run --estimate --json        what model servers may cost, for a script
    """
    from flows.launch import Wish, run_road
    from tasks.contract.params import BadInput

    if only and (first, last) != (ROAD.names[0], ROAD.names[-1]):
        raise BadInput("--only names one stage; --from and --to have no place beside it")
    if as_json and not (dry_run or estimate):
        raise BadInput("--json goes with --dry-run or --estimate; a run writes its figures to reports/summary.json")
    stages = None if refresh is None else [stage for stage in refresh if stage]
    wish = Wish(
        profile, values.parsed(overrides), only or first, only or last, stages, refresh_models, verify, "--only" if only else "--from"
    )
    if dry_run:
        return _foresee(wish, as_json)
    return _estimate(wish, as_json) if estimate else run_road(wish)


def _foresee(wish: Wish, as_json: bool) -> int:
    from flows.launch import foresee
    from flows.summary_text import step_lines, step_records

    steps, refused = foresee(wish)
    if as_json:
        print_json({"stages": step_records(steps), "refused": refused})
    else:
        print("\n".join(step_lines(steps)))
        if refused:
            print(f"cairn: a run would be refused: {refused}", file=sys.stderr)
    return 2 if refused else 0


def _estimate(wish: Wish, as_json: bool) -> int:
    from flows.estimate import as_document, estimate, lines
    from flows.launch import estimated

    plan, stages = estimated(wish)
    found = estimate(plan.settings, stages, plan.store.state)
    if as_json:
        print_json(as_document(found, plan.settings))
    else:
        print("\n".join(lines(found, plan.settings)))
    return 0


@app.command(cls=group.Command)
def stage(name: values.Stage, refresh: Annotated[bool, typer.Option(REFRESH, help="Compute again though cached.")] = False) -> int:
    """It reads its inputs as they lie in data/ and lays its result out there; prints the result's identity.

    Examples:
      cairn stage filter          on what lies in data/ now
      cairn stage sft --refresh   train again though nothing changed
    """
    from flows.stage import run_stage

    print(run_stage(name, refresh))
    return 0


@app.command(cls=group.Command)
def accept(
    stages: Annotated[list[str], typer.Argument(metavar="STAGE...", help="Stages whose result stays.", autocompletion=values.stages)],
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why the change does not matter; kept in .cairn/accepted.jsonl.")],
) -> int:
    """Binds each stage's present key to the result that it had. Either all of the named stages are accepted, or none.

    Examples:
      cairn accept sft rl --why "only a comment"
    """
    from flows.accept import accept_results

    for line in accept_results(stages, why):
        print(line)
    return 0
