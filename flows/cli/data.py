"""`cairn export`, `import`, `regrade`, `calls`, `bank`, `reserve`: conversations that were made, and what they cost."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json
from tasks.contract.problem import SPLITS
from tasks.road import ROAD

app = group.app()

GENERATING = tuple(step for step in ROAD.entering("generate") if step not in ROAD.held_out)
IMPORTING = ROAD.entering("generate")
EXPORTED = (*GENERATING, *ROAD.entering("filter"))
"""Stages whose conversations can be exported."""
SHAPES = ("openai", "sharegpt", "xlam", "tau2", "mlflow", "served", "cairn")


@app.command(cls=group.Command)
def export(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help=f"Whose rows: of {', '.join(EXPORTED)}.", **values.one_of(EXPORTED))],
    out: Annotated[str, typer.Argument(metavar="FOLDER", help="For the data set; must not exist yet, or be empty.")],
    shape: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="messages (messages + tools, as chat templates read them) or sharegpt (conversations of from and value).",
            **values.one_of(("messages", "sharegpt")),
        ),
    ] = "messages",
    file: Annotated[
        str, typer.Option("--file", metavar="NAME", help="Of the rows: parquet or jsonl.", **values.one_of(("parquet", "jsonl")))
    ] = "parquet",
    accepted: Annotated[
        bool, typer.Option("--accepted", help="Won (generate) or kept (filter) conversations alone; the default.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Lost or dropped ones too; the column `accepted` tells.")] = False,
    split: Annotated[
        str, typer.Option(metavar="NAME", help=f"One split ({', '.join(SPLITS)}); default: all, a file each.", **values.one_of(SPLITS))
    ] = "",
    license: Annotated[str, typer.Option(metavar="ID", help="For the card, such as cc-by-4.0 (default: unknown).")] = "",
    source: Annotated[
        str,
        typer.Option("--from", metavar="SOURCE", help="A folder or artifact:IDENTITY, whole or its beginning (default: data/STAGE)."),
    ] = "",
) -> int:
    """FOLDER/data/SPLIT.parquet (or .jsonl) and a card, README.md, as the Hugging Face hub reads them.

    Examples:
      cairn export generate out/ --license cc-by-4.0
      cairn export filter out/ --all --format sharegpt --file jsonl
    """
    from flows.exports.export_rows import Wish, export_rows
    from tasks.contract.params import BadInput

    if accepted and everything:
        raise BadInput("--accepted and --all: one of the two, please; --accepted is the default")
    return export_rows(stage, out, source, Wish(shape, file, not everything, split, license))


@app.command("import", cls=group.Command)
def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="JSON lines, JSON, Parquet, a folder of `datasets`, .cairn/served, or mlflow:EXPERIMENT."
        ),
    ],
    shape: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="How conversations are written, if that is not found out.", **values.one_of(SHAPES)
        ),
    ] = "",
    world: Annotated[str, typer.Option(metavar="NAME", help="The world they are about (default: the one that has their tools).")] = "",
    customer: Annotated[str, typer.Option(metavar="FIELD", help="Dotted field that says whom a line is about; splits go by it.")] = "",
    mask: Annotated[
        str | None, typer.Option(metavar="KINDS", help="Personal data to mask, with commas; 'none' for nothing (default: all kinds).")
    ] = None,
    mask_fields: Annotated[
        str, typer.Option(metavar="NAMES", help="Arguments and keys whose values are masked, such as name,street.")
    ] = "",
    stage: Annotated[
        str, typer.Option(metavar="STAGE", help=f"Which takes them, of {', '.join(IMPORTING)}.", **values.one_of(IMPORTING))
    ] = GENERATING[0],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of them; the params stay as they are.")
    ] = False,
    as_json: values.AsJson = False,
) -> int:
    """Your own conversations as training data: every line is read, held against the world's tools, replayed where the
    state can be rebuilt, and personal data is masked. Then the params take them in place of generated ones. Stage reserve takes
    those of held-out customers, as test problems of a world that draws none: evaluations play what was liked and replays.

    Examples:
      cairn import logs.jsonl --dry-run
      cairn import chats/*.jsonl --customer metadata.account --mask email,phone --mask-fields name,street
      cairn import .cairn/served --stage generate
      cairn import chats/*.jsonl --stage reserve
      cairn import mlflow:my-agent
    """
    from flows.importing import lines, look, use
    from tasks.contract.params import BadInput

    given: dict[str, object] = {"shape": shape, "world": world, "customer": customer}
    changes = {key: value for key, value in given.items() if value}
    if mask is not None:
        changes["mask"] = [] if mask == "none" else mask.split(",")
    if mask_fields:
        changes["mask_fields"] = mask_fields.split(",")
    chosen, figures = look(files, stage, changes)
    if written := not dry_run and not figures["stopped"]:
        use(chosen)
    if as_json:
        print_json({"params": chosen, "written": written, **figures})
    else:
        print("\n".join(lines(figures)))
        if written:
            print(f"params/pipeline.yaml: {stage}.method is imported now; `cairn run` goes on")
        elif dry_run:
            print("not written: this was a dry run")
    if figures["stopped"]:
        raise BadInput(figures["stopped"])
    return 0


@app.command(cls=group.Command)
def regrade(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.parquet",
            help="Trajectories, a dataset, or an evaluation's trials; or .cairn/served, what `cairn serve` kept. It stays as it is.",
        ),
    ],
    world: Annotated[str, typer.Option(metavar="FOLDER", help="A frozen world, or a folder of them (default: the file's own).")] = "",
    problems: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Blueprints or problems, if not beside the file; may be repeated.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of the run that made the trials (default: that of the active params).")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="Write the rows with their new verdicts here (default: nowhere).")] = "",
) -> int:
    """After a change of the grading: which conversations would be won or lost now, and for which part of the verdict.

    Examples:
      cairn regrade data/generate/trajectories.parquet
      cairn regrade data/evaluate/trials.parquet --out again.parquet
      cairn regrade .cairn/served      conversations whose requests named a problem
    """
    from pathlib import Path

    from flows import OUTSIDE, PROJECT
    from flows.regrade import lines
    from flows.regrade import regrade as grade_again
    from tasks.engine.settings import load

    seeds = {seed} if seed is not None else set()
    if not OUTSIDE:
        settings = load(PROJECT, overrides=[("seed", seed)] if seed is not None else ())
        seeds |= {settings.seed(step) for step in settings.road.entering("evaluate")}
    target, frozen, named = Path(out) if out else None, Path(world) if world else None, [Path(one) for one in problems or ()]
    if Path(file).is_dir() or file.endswith(".jsonl"):
        from flows import served_grading

        found = served_grading.grade_served(Path(file), PROJECT, frozen, named, target)
        print("\n".join(served_grading.lines(found)))
    else:
        print("\n".join(lines(grade_again(Path(file), frozen, named, seeds, target))))
    if target is not None:
        print(f"written: {target}")
    return 0


@app.command(cls=group.Command)
def calls(
    forget: Annotated[
        str, typer.Option(metavar="MODEL", help="Delete a model's answers, so that they are asked and paid for again.")
    ] = "",
    forget_answer: Annotated[
        str, typer.Option("--forget-answer", metavar="ID", help="Delete one answer, by the id that a message named.")
    ] = "",
    as_json: values.AsJson = False,
) -> int:
    """Whatever a server answered is kept in .cairn/, so that nothing is paid for twice.

    Examples:
      cairn calls
      cairn calls --forget-answer 0a1b2c3d
    """
    from flows import OUTSIDE, STATE
    from flows import calls as cache
    from tasks.contract.params import BadInput

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if forget:
        print(f"{cache.forget(STATE, forget)} answers of {forget} are forgotten")
    elif forget_answer:
        print(f"{cache.forget_answer(STATE, forget_answer)} is forgotten; whoever asks the same again pays for a new one")
    elif as_json:
        print_json(cache.as_document(STATE))
    else:
        print("\n".join(cache.lines(STATE)))
    return 0


@app.command(cls=group.Command)
def bank(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="pin: those of the last run, in every round; grow: what a run accepts.",
            **values.one_of(("pin", "grow")),
        ),
    ],
    stage: Annotated[
        str,
        typer.Argument(
            metavar="[STAGE]",
            help=f"pin: whose bank, of {', '.join(GENERATING)}; needed where there are several. All are shown what is pinned.",
            **values.one_of(GENERATING),
        ),
    ] = "",
) -> int:
    """The bank holds accepted blueprints that a generator is shown as examples. Pinned (params/bank.json), each
    round is shown what it was shown before, and an edit of a judge's prompt costs the judges' calls alone.

    Examples:
      cairn bank pin
      cairn bank grow
    """
    from flows import OUTSIDE, PROJECT
    from flows import bank as examples
    from tasks.contract.params import BadInput

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if action == "grow" and stage:
        raise BadInput(f"grow {stage}: one bank is pinned for all stages; `cairn bank grow` lets it grow again")
    if action == "pin" and not stage and len(GENERATING) != 1:
        raise BadInput(f"which bank? Name the stage whose it is: `cairn bank pin STAGE`, of {', '.join(GENERATING) or 'none'}")
    print(examples.pin(PROJECT, stage or GENERATING[0]) if action == "pin" else examples.grow(PROJECT))
    return 0


@app.command(cls=group.Command)
def reserve(
    action: Annotated[
        str, typer.Argument(metavar="[ACTION]", help="grow: prove more; default: say what there is.", **values.one_of(("grow",)))
    ] = "",
    more: Annotated[
        int, typer.Argument(metavar="[N]", min=0, help="grow: problems more of each world; default: those of one gate.")
    ] = 0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="grow: say what its calls to model servers may cost, and change nothing.")
    ] = False,
) -> int:
    """Test problems that are proven for worlds that draw none: how many there are, how many gates have used
    (params/reserve_used.yaml), how many are free. grow raises `accepted` in params/pipeline.yaml and makes what is new;
    what was proven stays, no answer is paid for twice, and nothing is trained again. A candidate that was evaluated
    stays with the reserve that it met: it gets no second try on other problems. A grow that fails puts the params back.

    Examples:
      cairn reserve
      cairn reserve grow --estimate
      cairn reserve grow 200
    """
    from flows import reserve as proven
    from flows.run import open_plan
    from tasks.contract.params import BadInput

    if not action and (more or estimate):
        raise BadInput("a number and --estimate go with grow: `cairn reserve grow`")
    plan = open_plan()
    if action:
        from flows import reserve_growth as growth

        for line in growth.cost(plan, more) if estimate else growth.grow(plan, more):
            print(line)
    for line in () if estimate else proven.lines(proven.state(open_plan())):
        print(line)
    return 0
