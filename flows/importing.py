"""`cairn import`: recorded conversations become the rows that a stage leaves. They are read once to see what becomes of them, and then
the params say that the stage takes them (method `imported`); the next run reads them again.

What would not stay as it is is named otherwise or copied: what a stage has left is named by its identity, several files are put
together below the state root, and traces are fetched from MLflow into a file there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import OUTSIDE, PROJECT, STATE
from tasks.contract.params import BadInput, nearest
from tasks.engine.dvc_yaml import DATA
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE
from tasks.engine.settings import load

if TYPE_CHECKING:
    from tasks.engine.artifact import Store

METHOD = "imported"
MLFLOW = "mlflow:"
"""With the name of an experiment behind it: its traces."""
PAGE = 100
"""Traces that are fetched at a time; ours."""
FOLDER = "imports"
"""Below the state root: where several files are put together."""


def look(sources: Sequence[str], stage: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read all conversations of some files, folders or both, as the stage would; nothing is kept of them.

    changes: params of the method by name. Returns (the params that take them, the counts of `tasks.generate.imported`, whose `stopped`
    says it when more cannot be taken than the params allow). Raises BadInput for files that are not there.
    """
    from flows.preview import frozen_worlds
    from flows.run import open_plan
    from tasks.contract.context import Context
    from tasks.contract.params import StageFailed
    from tasks.engine import methods
    from tasks.engine import sources as engine_sources
    from tasks.engine.artifact import Store

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    store = Store(STATE)
    place = _together([_fetched(one) if one.startswith(MLFLOW) else Path(one).expanduser() for one in sources])
    about = {"source": _name(place, store), "identity": engine_sources.identity_of(place, store, holds="files"), **changes}
    chosen = {f"{stage}.method": METHOD, **{f"{stage}.{METHOD}.{key}": value for key, value in about.items()}}
    plan = open_plan("", chosen)
    module = methods.load(plan.settings.room(stage), METHOD)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        inputs = module.Inputs(worlds=frozen_worlds(plan, stage, work / "worlds"), source=place)
        (work / "out").mkdir()
        prompt = plan.settings.shared.prompt.model_dump()
        context = Context(seed=plan.settings.seed(stage), out=work / "out", scratch=work / "scratch", prompt=prompt)
        try:
            figures = module.run(inputs, plan.settings.params(stage), context)
        except module.TooManyLeftOut as error:
            figures = dict(error.figures)
        except StageFailed as error:
            raise BadInput(str(error)) from None
    return chosen, figures


def use(chosen: Mapping[str, Any]) -> None:
    """Write params into the workspace's params/pipeline.yaml, comments kept; they are checked first."""
    from flows.model_fill import written_into

    load(PROJECT, overrides=tuple(chosen.items())).check(here=False)
    text = (PROJECT / PIPELINE).read_text(encoding="utf-8")
    write_text(PROJECT / PIPELINE, written_into(text, [*chosen.items()]))


def _name(place: Path, store: Store) -> str:
    """How params name a place: what lies in data/ is written anew by its stage, so that is named by its identity."""
    if place.is_relative_to((PROJECT / DATA).resolve()):
        identity = store.hashes.path(place)
        if place.is_dir() and store.has(identity):
            return f"artifact:{identity}"
        raise BadInput(f"{place}: what stages leave is imported whole: name {DATA}STAGE, or copy the file to another place.")
    return str(place)


def _fetched(name: str) -> Path:
    """The traces of an experiment of MLflow's, fetched into a file, a line each, in the order of their times."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client: Any = MlflowClient()
    wanted = name.removeprefix(MLFLOW)
    try:
        experiment = client.get_experiment_by_name(wanted)
        if experiment is None:
            known = [one.name for one in client.search_experiments()]
            raise BadInput(
                f"{name}: MLflow has no experiment {wanted!r}.{nearest(wanted, known)} It has: {', '.join(known) or 'none'}."
            )
        file = STATE / FOLDER / f"mlflow-{experiment.experiment_id}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        token: str | None = ""
        with file.open("w", encoding="utf-8") as lines_of:
            while token is not None:
                page = client.search_traces(
                    locations=[experiment.experiment_id], order_by=["timestamp_ms ASC"], max_results=PAGE, page_token=token or None
                )
                lines_of.writelines(f"{json.dumps(json.loads(trace.to_json()), ensure_ascii=False)}\n" for trace in page)
                token = page.token or None
    except MlflowException as error:
        raise BadInput(f"{name}: MLflow cannot give its traces: {error}") from None
    if not file.stat().st_size:
        raise BadInput(f"{name}: this experiment of MLflow's has no traces.")
    return file


def _together(paths: Sequence[Path]) -> Path:
    """One place for all of them: itself where there is one, else a folder below the state root with links to them. An absolute path."""
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: nothing lies there. Name files of conversations, or folders of them.")
    if len(paths) == 1:
        return paths[0].resolve()
    names = [path.name for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BadInput(f"two of the files are called {twice!r}; rename one, or put them into one folder and name that.")
    digest = hashlib.blake2b("\n".join(sorted(str(path.resolve()) for path in paths)).encode(), digest_size=6).hexdigest()
    folder = STATE / FOLDER / digest
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in paths:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name one folder alone, or files.")
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:  # another file system
            shutil.copyfile(path, folder / path.name)
    return folder.resolve()


def lines(figures: Mapping[str, Any]) -> list[str]:
    """What was found, for people."""
    counts = figures["conversations"]
    found = [f"{counts['read']:,} conversations: {counts['kept']:,} taken, {counts['read'] - counts['kept']:,} left out"]
    found += [f"  {status:<12}{counts[status]:>9,}  {words}" for status, words in WORDS.items() if counts[status]]
    for title, name in TABLES.items():
        if figures[name]:
            found += [title, *(f"  {count:>9,}  {key}" for key, count in sorted(figures[name].items(), key=lambda one: -one[1]))]
    return found


WORDS = {
    "graded": "replayed, and the log says what was wanted",
    "replayed": "every call answers as it did; nothing says what was wanted",
    "ungraded": "the world answers otherwise than the log, or cannot be set back",
    "unfinished": "the log breaks off",
}
TABLES = {
    "left out, by reason:": "left_out",
    "answered otherwise than in the log, by tool:": "answered_otherwise",
    "unfinished, as they end in:": "unfinished",
    "problems that others can be asked to solve (accepted), and why not:": "problems",
    "by split:": "splits",
    "personal data masked:": "masked",
    "what people said:": "feedback",
}
