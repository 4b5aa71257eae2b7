"""`cairn merge`, `search`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()


@app.command(cls=group.Command)
def merge(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file with the keys method, base, experts, params.")],
    out: Annotated[str, typer.Argument(metavar="FOLDER", help="For the merged checkpoint; must not exist yet.")],
    overrides: values.Overrides = None,
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads of the merge; 0: all cores.")] = 0,
    as_json: values.AsJson = False,
) -> int:
    """Nothing of the road is read, cached or promoted. A checkpoint is a folder, artifact:IDENTITY, models:/NAME/VERSION or
    models:/NAME@ALIAS. A recipe:

      method: breadcrumbs
      base: checkpoints/instruct
      experts: {code: checkpoints/code, chat: artifact:0123...dir/model}
      params: {keep: 0.1, trim_top: 0.01, alpha: 0.4}

    Examples:
      cairn merge recipe.yaml merged/
      cairn merge recipe.yaml sparser/ --set keep=0.05
    """
    from pathlib import Path

    from flows import OUTSIDE, STATE
    from flows.merging import figure_lines, merge_by_recipe
    from tasks.contract.params import BadInput
    from tasks.engine.locks import using

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if threads < 0:
        raise BadInput(f"--threads {threads}: allowed are 1 and more, or 0 for all cores")
    with using(STATE):
        figures = merge_by_recipe(Path(recipe), Path(out), values.parsed(overrides), threads)
    if as_json:
        print_json(figures)
    else:
        print("\n".join(figure_lines(figures)))
    return 0


@app.command(cls=group.Command)
def search(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="What to try: sampler, space, sizes.")] = "params/search.yaml",
    no_write: Annotated[bool, typer.Option("--no-write", help="Leave params/pipeline.yaml as it is, whoever wins.")] = False,
) -> int:
    """Every trial is cached, so a killed search goes on. The best one is written into params/pipeline.yaml only if it
    beats the present setting on validation problems that no trial has seen. Test problems are never looked at.

    Examples:
      cairn search
      cairn search params/search.yaml --no-write
    """
    from pathlib import Path

    from flows import OUTSIDE
    from flows.run import open_plan
    from tasks.contract.params import BadInput

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    from flows.search import check_space, outcome_lines, read_search, search_merge
    from flows.server import prefect_api

    wanted = read_search(Path(file))
    check_space(open_plan().settings, wanted)
    with prefect_api():
        found = search_merge(wanted, write=not no_write)
    print("\n".join(outcome_lines(found)))
    return 0
