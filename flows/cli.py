"""The `cairn` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from flows.guard import guarded
from tasks import STAGES
from tasks.worlds import SPLITS


def parser() -> argparse.ArgumentParser:
    """All commands and their help."""
    top = argparse.ArgumentParser(prog="cairn", description="From a tool API to a small agent that is good at it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make a project of your own in an empty folder")
    init.add_argument("folder", metavar="FOLDER", help="where; it must be empty or not exist yet")
    init.add_argument("--world", default="", metavar="NAME", help="package of the world (default: the folder's name)")
    init.add_argument("--class", dest="cls", default="", metavar="CLASS", help="of the world (default: after the package)")
    init.add_argument("--smoke", action="store_true", help="set up its environment and run every stage on tiny inputs")

    run = commands.add_parser("run", help="run the road; what is cached is not run again")
    run.add_argument("--profile", default="", help="run a profile as an experiment: the workspace stays as it is")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an experiment: override a param, as sft.sft.epochs=2"
    )
    run.add_argument("--from", dest="first", default=STAGES[0], metavar="STAGE", help="first stage that may run")
    run.add_argument("--to", dest="last", default=STAGES[-1], metavar="STAGE", help="last stage to run")
    run.add_argument("--only", default="", metavar="STAGE", help="this stage alone")
    run.add_argument("--refresh", nargs="*", default=None, metavar="STAGE", help="compute again though cached (all, or those named)")
    run.add_argument(
        "--refresh-models", action="store_true", help="take another model behind a server than params/roles.lock has noted"
    )
    run.add_argument("--dry-run", action="store_true", help="say what would run and why; run nothing")
    run.add_argument("--verify", action="store_true", help="hash every cached byte instead of trusting size, time and inode")
    run.add_argument("--estimate", action="store_true", help="what its calls to model servers may cost; run nothing")

    use = commands.add_parser("use", help="make a profile the workspace's params")
    use.add_argument("profile", nargs="?", default="", help="its name; without one, list the profiles")
    use.add_argument("--force", action="store_true", help="overwrite edits of params/pipeline.yaml (they are kept in .cairn/)")

    stage = commands.add_parser("stage", help="run one stage on what lies in data/, as `dvc repro` does")
    stage.add_argument("name", metavar="STAGE")
    stage.add_argument("--refresh", action="store_true", help="compute again though cached")

    commands.add_parser("methods", help="the rooms, their methods and their papers")
    status = commands.add_parser("status", help="each stage: cached or would run, and why")
    status.add_argument("--verify", action="store_true", help="hash every cached byte")
    commands.add_parser("doctor", help="look at everything that is kept, byte by byte: what is damaged, what never ran, what to do")

    preview = commands.add_parser("preview", help="a few blueprints and conversations, shown readably; nothing is recorded")
    preview.add_argument("stage", metavar="STAGE", choices=("generate",), help="generate")
    preview.add_argument("-n", type=int, default=5, metavar="N", help="blueprints, shared evenly among the worlds (default: 5)")
    preview.add_argument("--profile", default="", help="params of a profile instead of the workspace's")
    preview.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a param")

    _export(commands.add_parser("export", help="conversations as a data set for other trainers, with a card"))

    merge = commands.add_parser("merge", help="merge any checkpoints by a recipe, beside the road")
    merge.add_argument("recipe", metavar="RECIPE", help="YAML: method, base, experts, params (see the README)")
    merge.add_argument("out", metavar="FOLDER", help="the merged checkpoint; must not exist yet")
    merge.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a param of the recipe")
    merge.add_argument("--threads", type=int, default=0, help="of the merge; default: all cores")

    search = commands.add_parser("search", help="better params for the merge, found on validation problems")
    search.add_argument("file", nargs="?", default="params/search.yaml", metavar="FILE", help="what to try (default: %(default)s)")
    search.add_argument("--no-write", action="store_true", help="leave params/pipeline.yaml as it is, whoever wins")

    bank = commands.add_parser("bank", help="pin the examples that a generator is shown to those of the last run, or let them grow")
    bank.add_argument("action", choices=("pin", "grow"), help="pin: those of the last run, in every round; grow: what a run accepts")

    calls = commands.add_parser("calls", help="answers of model servers that are kept: size, tokens and money per model")
    calls.add_argument(
        "--forget", default="", metavar="MODEL", help="delete a model's answers, so that they are asked and paid for again"
    )
    calls.add_argument("--forget-answer", default="", metavar="ID", help="delete one answer, by the id that a message named")

    accept = commands.add_parser("accept", help="keep results of stages although their keys changed, as `dvc commit` does")
    accept.add_argument("stages", metavar="STAGE", nargs="+")
    accept.add_argument("--why", required=True, help="why the change does not matter")

    promote = commands.add_parser("promote", help="carry out the last decision (for approval: manual)")
    promote.add_argument("--why", default="approved by hand", help="for the ledger")
    rollback = commands.add_parser("rollback", help="make the champion before this one champion again")
    rollback.add_argument("--to", default="", metavar="VERSION", help="another version that was champion")
    rollback.add_argument("--why", required=True, help="for the ledger")
    champion = commands.add_parser("champion", help="who is champion, and the evidence that decisions use")
    champion.add_argument("--none", action="store_true", help="decide from now on as if there were no champion")
    champion.add_argument("--settle", action="store_true", help="write params/champion.yaml anew from the ledger")

    _world(commands.add_parser("world", help="write, prove or play a world of your own"))

    regrade = commands.add_parser("regrade", help="grade stored conversations again; what the present grading changes, part by part")
    regrade.add_argument("file", metavar="FILE.parquet", help="trajectories, a dataset, or an evaluation's trials; stays as it is")
    regrade.add_argument("--world", default="", metavar="FOLDER", help="a frozen world, or a folder of them (default: the file's own)")
    regrade.add_argument(
        "--problems", action="append", default=[], metavar="FILE", help="blueprints or problems, if not beside the file"
    )
    regrade.add_argument("--seed", type=int, default=None, help="of the run that made the trials (default: that of the active params)")
    regrade.add_argument("--out", default="", metavar="FILE", help="write the rows with their new verdicts here")
    _described(commands)
    return top


def _described(commands: Any) -> None:
    """`cairn COMMAND --help` begins with what the list of commands says of it."""
    for one in commands._choices_actions:
        commands.choices[one.dest].description = f"{one.help[:1].upper()}{one.help[1:]}."


def _export(export: argparse.ArgumentParser) -> None:
    """cairn export generate, filter."""
    export.add_argument("stage", metavar="STAGE", choices=("generate", "filter"), help="generate or filter: whose rows")
    export.add_argument("out", metavar="FOLDER", help="for the data set; must not exist yet, or be empty")
    export.add_argument("--format", choices=("messages", "sharegpt"), default="messages", help="messages + tools, or ShareGPT-like")
    export.add_argument("--file", choices=("parquet", "jsonl"), default="parquet", help="of the rows (default: parquet)")
    which = export.add_mutually_exclusive_group()
    which.add_argument("--accepted", action="store_true", help="won (generate) or kept (filter) conversations alone; the default")
    which.add_argument("--all", action="store_true", help="lost or dropped ones too; the column `accepted` tells")
    export.add_argument("--split", choices=SPLITS, default="", help="one split (default: all, a file each)")
    export.add_argument("--license", default="", metavar="ID", help="for the card, such as cc-by-4.0 (default: unknown)")
    export.add_argument("--from", dest="source", default="", metavar="SOURCE", help="a folder or artifact:<identity> (default: data/)")


def _world(world: argparse.ArgumentParser) -> None:
    """cairn world new, check, play."""
    actions = world.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="write a small world that works, with its tests")
    new.add_argument("name", metavar="NAME", help="of the package, such as my_shop")
    new.add_argument("--class", dest="cls", default="", metavar="CLASS", help="of the world (default: after the package)")
    check = actions.add_parser("check", help="prove a world: tools, determinism, state, policy, problems")
    check.add_argument("--problems", type=int, default=105, metavar="N", help="problems of each split that are looked at")
    play = actions.add_parser("play", help="take the agent's or the user's seat in one conversation")
    play.add_argument("--seat", choices=("agent", "user"), default="agent")
    play.add_argument("--family", default="", help="of the problem (default: drawn)")
    play.add_argument("--split", choices=SPLITS, default="train", help="of the problem")
    for one in (check, play):
        one.add_argument("address", metavar="MODULE:CLASS", help="such as my_shop.world:Shop")
        one.add_argument("--size", type=int, default=60, metavar="N", help="users of the world")
        one.add_argument("--seed", type=int, default=0, help="of tables and problems")
    for one in (new, check, play):
        one.add_argument("--folder", default="", metavar="DIR", help="where the package lies, if not in the project")
    _described(actions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run a command; returns the exit code."""
    asked = parser().parse_args(arguments)
    from flows import commands

    command: Any = getattr(commands, asked.command)
    return int(command(asked) or 0)


def entry() -> None:
    """The console script."""
    sys.exit(guarded(main))


if __name__ == "__main__":
    entry()
