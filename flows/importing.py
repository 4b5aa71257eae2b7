"""`cairn import`: recorded conversations become the rows that a stage leaves. They are read once to see what becomes of them, and then
the params say that the stage takes them (method `imported`); the next run reads them again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import OUTSIDE, PROJECT, STATE
from tasks.contract.params import BadInput
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE
from tasks.engine.settings import load

METHOD = "imported"
FOLDER = "imports"
"""Below the state root: where several files are put together."""


def look(sources: Sequence[str], stage: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read all conversations of some files, folders or both, as the stage would; nothing is kept of them.

    changes: params of the method by name. Returns (the params that take them, the counts of `tasks.generate.imported`). Raises BadInput
    for files that are not there, and when more of them cannot be taken than the params allow.
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
    place, store = _together([Path(one).expanduser() for one in sources]), Store(STATE)
    about = {"source": str(place), "identity": engine_sources.identity_of(place, store, holds="files"), **changes}
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
        except StageFailed as error:
            raise BadInput(str(error)) from None
    return chosen, figures


def use(chosen: Mapping[str, Any]) -> None:
    """Write params into the workspace's params/pipeline.yaml, comments kept; they are checked first."""
    from flows.model_fill import written_into

    load(PROJECT, overrides=tuple(chosen.items())).check(here=False)
    text = (PROJECT / PIPELINE).read_text(encoding="utf-8")
    write_text(PROJECT / PIPELINE, written_into(text, [*chosen.items()]))


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
}
TABLES = {
    "left out, by reason:": "left_out",
    "answered otherwise than in the log, by tool:": "answered_otherwise",
    "problems that others can be asked to solve (accepted), and why not:": "problems",
    "by split:": "splits",
    "personal data masked:": "masked",
    "what people said:": "feedback",
}
