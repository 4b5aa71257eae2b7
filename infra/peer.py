"""mergekit as a program of its own: the environment it lives in and its command line. No code of it runs in our processes.

mergekit is LGPL and its pins are not ours, so it is no dependency. On first use an environment is made in .cairn/mergekit from
infra/mergekit.txt, and made anew when that file changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.bench import ROOT

HOME = ROOT / ".cairn" / "mergekit"
PINS = ROOT / "infra" / "mergekit.txt"
QUIET = ("--quiet", "--no-write-model-card", "--no-copy-tokenizer")
"""Nothing but the merge: no progress bars, no README, no tokenizer (the checkpoints here have none)."""
MANY = """
import json, sys
from importlib.metadata import entry_points
command = next(iter(entry_points(group="console_scripts", name="mergekit-yaml"))).load()
for arguments in json.load(sys.stdin):
    try:
        command(arguments, standalone_mode=False)
        said = ""
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print("MERGED " + json.dumps(said), flush=True)
"""
"""Runs in mergekit's environment: its command line, once per line of arguments, so that the imports (5 s) are paid once."""
HELP = """
mergekit's environment could not be made. It is needed by `make parity-merge` and `make bench-merge` alone.
- Without a package index, or with one that lacks a version: put wheels of what infra/mergekit.txt names into a folder and set
  PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER.
- With newer versions: `pip install mergekit==0.1.5` in a fresh environment, then write its `pip freeze` into infra/mergekit.txt.
Nothing was left behind in .cairn/mergekit.
"""


def environment() -> dict[str, str]:
    """Of mergekit's processes: nothing is asked of a hub, and libraries use two threads, as ours do."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"}


def ready() -> Path:
    """The `bin` folder of mergekit's environment, which is made first if need be. SystemExit, with what to do, when it cannot be."""
    stamp = HOME / "pins.txt"
    if stamp.is_file() and stamp.read_bytes() == PINS.read_bytes():
        return HOME / "bin"
    print(f"mergekit's environment is made in {HOME.relative_to(ROOT)} (once; some minutes, about 2 GB)", flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    venv.create(HOME, with_pip=True)
    _install([str(HOME / "bin" / "python"), "-m", "pip", "install", "--requirement", str(PINS)])
    stamp.write_bytes(PINS.read_bytes())
    return HOME / "bin"


def _install(command: Sequence[str]) -> None:
    """Run pip; a line of progress for each package that it has found."""
    wanted = sum("==" in line for line in PINS.read_text().splitlines())
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert pip.stdout is not None
    said: list[str] = []
    found = 0
    for line in pip.stdout:
        said.append(line)
        if line.startswith(("Collecting ", "Processing ")):  # from an index, from a folder of wheels
            found += 1
            print(f"  {found} of {wanted}: {Path(line.split()[1]).name}", flush=True)
        elif line.startswith("Installing"):
            print("  installing", flush=True)
    if pip.wait():
        shutil.rmtree(HOME)
        raise SystemExit("".join(said[-20:]) + HELP)


def merges(jobs: Sequence[tuple[Mapping[str, object], Path]], options: Sequence[str] = ()) -> list[str]:
    """Run mergekit-yaml on (configuration, output folder) one after another in one process; per job "" or what went wrong.

    Each configuration is written beside its output, as FOLDER.yaml (JSON is YAML). options: of the command line, besides QUIET.
    """
    asked = []
    for configuration, out in jobs:
        file = out.with_name(f"{out.name}.yaml")
        file.write_text(json.dumps(configuration), encoding="utf-8")
        asked.append([str(file), str(out), *QUIET, *options])
    answer = subprocess.run(
        [ready() / "python", "-c", MANY],
        input=json.dumps(asked),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    said = [json.loads(line.removeprefix("MERGED ")) for line in answer.stdout.splitlines() if line.startswith("MERGED ")]
    if len(said) != len(jobs):
        raise SystemExit(f"mergekit ended with {answer.returncode} after {len(said)} of {len(jobs)} merges:\n{answer.stderr[-2000:]}")
    return said


def command(configuration: Path, out: Path, options: Sequence[str] = ()) -> list[str]:
    """mergekit-yaml as a process of its own."""
    return [str(ready() / "mergekit-yaml"), str(configuration), str(out), *QUIET, *options]
