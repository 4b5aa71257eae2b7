"""The machine: room on its disks for what would run, and the GPU that the params name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows.doctor.finding import Finding, Place, error, good, note, warning
from flows.survey import survey
from tasks.contract.params import BadInput, read_yaml
from tasks.engine.check_players import check_device
from tasks.engine.disk import ROOM, written_to
from tasks.engine.explain import last
from tasks.engine.files import read_json
from tasks.engine.param_files import PIPELINE
from tasks.engine.plan import Plan

SPARE = 2.0
"""Times what the last results took that should be free: beside its result a training keeps a state to go on from; ours."""
PATIENCE = 8.0
"""Seconds for a program that is asked."""
CUDA_LOCK = "make setup LOCK=requirements-cuda.lock"


# --- disks -----------------------------------------------------------------------------------------------------------


def disks(place: Place) -> Iterator[Finding]:
    """Room for the state of all libraries, and for the results of what would run, by what they took when they last ran here."""
    needed, unknown = _needed(place.plan) if place.plan else (0, [])
    for folder in _folders(place):
        free, wanted = shutil.disk_usage(folder).free, ROOM + (needed if folder == place.state else 0)
        text = f"{free / 1e9:.1f} GB are free for {folder}"
        about = f"{wanted / 1e9:.1f} GB are needed: what would run left {needed / 1e9:.1f} GB when it last ran"
        if free < wanted:
            yield error("disk", f"{text}, and {about}", "cairn gc   # says what can go; or set CAIRN_HOME to a folder on a larger disk")
        elif free < ROOM + SPARE * (wanted - ROOM):
            yield warning(
                "disk", f"{text}; {about}, and trainings keep a state to go on from beside it", "cairn gc   # says what can go"
            )
        else:
            yield good("disk", text)
        if os.statvfs(folder).f_files and os.statvfs(folder).f_favail < 10_000:
            yield warning(
                "disk", f"{os.statvfs(folder).f_favail} files more can be made below {folder}", "cairn gc   # says what can go"
            )
    if unknown:
        yield note("disk", f"how much room {', '.join(unknown)} need is not known: they never ran here", "cairn forecast")


def _folders(place: Place) -> list[Path]:
    """One folder for each disk that a run writes to, the state root first."""
    found: dict[int, Path] = {}
    for path in written_to(place.state, place.project):
        there = next((folder for folder in (path, *path.parents) if folder.exists()), None)
        if there:
            found.setdefault(there.stat().st_dev, path if path.exists() else there)
    return list(found.values())


def _needed(plan: Plan) -> tuple[int, list[str]]:
    """(bytes that the last results of the stages that would run took, the stages of which none is known)."""
    needed, unknown = 0, []
    for step in survey(plan):
        if step.artifact is None:
            size = _last_size(plan, step.stage)
            needed += size
            unknown += [] if size else [step.stage]
    return needed, unknown


def _last_size(plan: Plan, stage: str) -> int:
    for experiment in (plan.experiment, not plan.experiment):
        key = (read_json(last(plan, stage, experiment)) or {}).get("key")
        if entry := plan.store.entry(str(key)):
            return plan.store.size(entry["identity"])
    return 0


# --- GPU -------------------------------------------------------------------------------------------------------------


def gpu(place: Place) -> Iterator[Finding]:
    """torch's build, the driver, and a first computation, where the params say device: cuda."""
    device = (read_yaml(place.project / PIPELINE) or {}).get("device", "cpu")
    driver, most = _driver()
    build = _torch_cuda()
    seen = f"torch is built {f'for CUDA {build}' if build else 'without CUDA'}; " + (
        f"driver {driver} (CUDA up to {most})" if driver else "no driver"
    )
    if device != "cuda":
        yield good("gpu", f"{PIPELINE} says device: {device}; {seen}")
        return
    try:
        check_device(device, f"{PIPELINE}: device")
    except BadInput as wrong:
        yield error("gpu", f"{wrong} ({seen})", "nvidia-smi" if build else CUDA_LOCK)
        return
    if most and int(most.partition(".")[0]) < int(build.partition(".")[0]):
        yield error(
            "gpu",
            f"{seen}: this driver is too old for it",
            f"update the NVIDIA driver to one for CUDA {build}; nvidia-smi says what it is",
        )
        return
    said = _computes()
    yield good("gpu", f"{seen}; {said[3:]} computes") if said.startswith("ok ") else error("gpu", f"{seen}; {said}", "nvidia-smi")


def _driver() -> tuple[str, str]:
    """(version of the NVIDIA driver, the newest CUDA that it takes); empty where there is none."""
    program = shutil.which("nvidia-smi")
    text = _ask([program]) if program else ""
    found = [re.search(pattern, text) for pattern in (r"Driver Version: *([\d.]+)", r"CUDA Version: *([\d.]+)")]
    driver, most = (match[1] if match else "" for match in found)
    return driver, most


def _torch_cuda() -> str:
    """The CUDA that torch is built for, by its file of versions, such as 13.0; empty without."""
    import importlib.util

    spec = importlib.util.find_spec("torch")
    text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    found = re.search(r"^cuda[^=\n]*= *'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else ""


def _computes() -> str:
    """`ok NAME` when torch computes on the GPU, in a process of its own; else why not."""
    program = "import torch; torch.ones(8, device='cuda').sum().item(); print('ok', torch.cuda.get_device_name())"
    return _ask([sys.executable, "-c", program]) or f"torch gave no answer within {PATIENCE:.0f} s"


def _ask(command: list[str]) -> str:
    """The last words of a program; "" when it takes too long."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return (
        answer.stdout.strip()
        if answer.returncode == 0
        else (answer.stderr.strip().splitlines() or [f"ended with {answer.returncode}"])[-1]
    )


def python(place: Place) -> Iterator[Finding]:
    """The Python that runs this, and whether `cairn` belongs to this project."""
    try:
        yield good("python", f"{sys.version.split()[0]} ({sys.executable}), cairn {version('cairn')}")
    except PackageNotFoundError:
        yield warning(
            "python", f"{sys.executable}: the package cairn is not installed there, so there is no command `cairn`", "make setup"
        )
