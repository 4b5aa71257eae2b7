"""`cairn evaluate`."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()
USER: Any = {"rich_help_panel": "Who plays the user"}


@app.command(cls=group.Command)
def evaluate(
    agent: Annotated[
        str,
        typer.Argument(
            metavar="AGENT",
            help="The base URL of an OpenAI-compatible server (http://127.0.0.1:8000/v1), with --model; or champion, the number of a "
            "version, a folder, artifact:<identity>.",
        ),
    ],
    world: Annotated[
        str,
        typer.Option("--world", metavar="WORLD", help="Its name, such as retail or tau2_retail, or MODULE:CLASS."),
    ],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The agent's name at its server.")] = "",
    key_env: Annotated[str, typer.Option("--key-env", metavar="NAME", help="The environment variable with that server's key.")] = "",
    human_url: Annotated[
        str, typer.Option("--human-url", metavar="URL", help="A server whose model plays the user (default: the agent's own).", **USER)
    ] = "",
    human_model: Annotated[
        str, typer.Option("--human-model", metavar="NAME", help="Its model (default: roles.human of the params).", **USER)
    ] = "",
    human_key_env: Annotated[
        str, typer.Option("--human-key-env", metavar="NAME", help="The variable with its key, where it is another server.", **USER)
    ] = "",
    problems: Annotated[
        Optional[int],  # noqa: UP045 (typer)
        typer.Option("--problems", metavar="N", help="How many (default: all that the world was given, else as the params say)."),
    ] = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045 (typer)
        typer.Option("--trials", metavar="N", help="Of each problem, 1 to 64 (default: as the params say)."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="NAME",
            help="test, validation, train or all. tau2's leaderboard plays all.",
            **values.one_of(("test", "validation", "train", "all")),
        ),
    ] = "test",
    at_once: Annotated[
        Optional[int],  # noqa: UP045 (typer)
        typer.Option("--concurrency", metavar="N", help="Most calls at once to each server (default: as the role says)."),
    ] = None,
    budget: Annotated[
        Optional[int],  # noqa: UP045 (typer)
        typer.Option("--budget", metavar="N", help="Most tokens of all calls to servers (default: budget of the params)."),
    ] = None,
    overrides: values.Overrides = None,
    as_json: values.AsJson = False,
) -> int:
    """An agent that no road made, or one that a road did, plays a world's problems as the road's evaluation plays them; nothing is
    promoted. A server reads tools and policy in full; a checkpoint in a world of the road what it was trained with
    (--set prompt.policy=full). Answers of servers are kept: what was interrupted goes on, and a second time costs nothing.
    Prices, patience and a budget in money are params: --set roles.contender.price_in=0.5, --set budget.max_cost=20.

    tau2_retail and tau2_airline are tau2-bench's; `make .cairn/tau2/.ready` fetches them, and a model must play their user.

    Examples:
      cairn evaluate http://127.0.0.1:8000/v1 --model my-model --world tau2_retail --human-model my-model --split all
      cairn evaluate https://api.example.com/v1 --model big --key-env API_KEY --world retail --trials 4
      cairn evaluate champion --world airline --problems 50
      cairn evaluate models/instruct --world retail --json | jq '.pass_k["1"]'
    """
    from flows import OUTSIDE, PROJECT, STATE, server_checks
    from flows.console import Console
    from flows.evaluate_agent import Wish
    from flows.evaluate_agent import evaluate as play
    from flows.evaluation_text import document, lines
    from flows.serving.source import named
    from tasks.contract.params import BadInput
    from tasks.road import ROAD

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    given = values.parsed(overrides)
    wish = Wish(agent, world, model, key_env, human_url, human_model, human_key_env, problems, trials, split, at_once, budget, given)
    if not wish.url:
        server_checks.mlflow()
    console = Console()
    try:
        found = play(
            wish,
            PROJECT,
            STATE,
            lambda done, total, note="": console("evaluate", "progress", {"done": done, "total": total, "note": note}),
            lambda details: console("evaluate", "calls", details),
            named,
        )
    finally:
        console.close()
    said = document(found, ROAD.judged)
    if as_json:
        print_json(said)
    else:
        print("\n".join(lines(said)))
    return 0
