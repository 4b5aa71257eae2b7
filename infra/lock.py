"""Resolve pyproject.toml into the two locks and the versions file.

The CPU lock pins every package that a fresh environment gets. The CUDA lock is the same list plus the packages that the CUDA build
of the same torch version needs; which build of torch a plain `torch==X` gives is decided by the package index, not by the lock.
`params/versions.yaml` holds the versions of the numeric libraries and the instruction set of CPU kernels: part of every
cache key.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMERIC = ("accelerate", "datasets", "numpy", "peft", "pyarrow", "safetensors", "tokenizers", "torch", "transformers", "trl")
"""Libraries whose version can change the bytes of a result."""
INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")
"""What `tasks.engine.start` fixes of the instruction set; threads are a param."""
HEAD = "# Written by `make lock` from pyproject.toml. Every transitive version is pinned: see the README on why.\n"


def _pip(python: Path, *arguments: str, **more: str) -> str:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more}
    return subprocess.run([python, "-m", "pip", *arguments], check=True, text=True, stdout=subprocess.PIPE, env=environment).stdout


def main() -> int:
    """Write the three files, if what was resolved works together (`infra/lock_smoke.py`)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"] + ["setuptools>=77"]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        _pip(python, "install", "--quiet", *wanted)
        frozen = [line for line in _pip(python, "freeze", "--all").splitlines() if not line.startswith("pip==")]
        pins = [line.partition("+")[0] for line in frozen]
        cuda = _cuda(python, pins)
        if subprocess.run([python, ROOT / "infra" / "lock_smoke.py", Path(folder) / "smoke"], check=False).returncode:
            print("These versions do not work together (see above): nothing was written. Bound the culprit in pyproject.toml.")
            return 1
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(sorted(pins, key=str.lower)) + "\n")
    (ROOT / "requirements-cuda.lock").write_text(HEAD + cuda)
    versions = dict(pin.split("==") for pin in pins)
    lines = [
        "# Versions of the numeric libraries and the instruction set of CPU kernels, written with the lock: part of every cache key."
    ]
    lines += [f"{name}: {versions[name]!r}" for name in NUMERIC]
    start = runpy.run_path(str(ROOT / "tasks" / "engine" / "start.py"))  # the file alone: nothing is installed for this Python
    fixed = start["kernels"](1)
    lines.append(f"kernels: {{{', '.join(f'{name}: {fixed[name]!r}' for name in INSTRUCTIONS)}}}")
    (ROOT / "params" / "versions.yaml").write_text("\n".join(lines) + "\n")
    return 0


def _cuda(python: Path, pins: list[str]) -> str:
    """The CPU pins plus what the CUDA build needs, asked of the index without local builds and without downloading it."""
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    report = json.loads(
        _pip(
            python,
            "install",
            "--isolated",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
            torch,
            PIP_CONFIG_FILE=os.devnull,
            PIP_FIND_LINKS="",
        )
    )
    known = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    found = {one["metadata"]["name"]: one["metadata"]["version"] for one in report["install"]}
    extra = [f"{name}=={version}" for name, version in found.items() if name.lower().replace("_", "-") not in known]
    return (
        "# requirements.lock plus the CUDA libraries of the same torch version.\n"
        + "\n".join(sorted(pins + extra, key=str.lower))
        + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
