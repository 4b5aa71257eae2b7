"""Whether this environment is the one that params/versions.yaml speaks of: library versions, and the instruction set of CPU kernels.

Both drivers read that file (it is in every key, and DVC tracks it); what is really installed and really fixed is neither's input. So it
is compared before anything computes, by metadata alone: nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, read_yaml
from tasks.engine.start import kernels

FILE = "params/versions.yaml"
KERNELS = "kernels"
"""Its entry for what `tasks.engine.start` fixes; all others are packages."""


def differences(project: Path) -> list[str]:
    """What differs between params/versions.yaml and this environment, a sentence each; empty when they agree."""
    said: Mapping[str, Any] = read_yaml(project / FILE) or {}
    if not isinstance(said, Mapping) or not isinstance(said.get(KERNELS) or {}, Mapping) or not all(said):
        raise BadInput(
            f"{FILE}: expected the version of each package, and under {KERNELS!r} a mapping of what is fixed. "
            f"`git checkout HEAD -- {FILE}` brings the committed one back; `make lock` writes it anew."
        )
    found = {name: _installed(name) for name in said if name != KERNELS}
    lines = [f"{name} is {found[name]} here and {said[name]} in {FILE}" for name in found if found[name] != str(said[name])]
    fixed, wanted = kernels(1), said.get(KERNELS) or {}
    return lines + [
        f"{name} is fixed to {fixed.get(name)} here and {wanted[name]} in {FILE}" for name in wanted if fixed.get(name) != wanted[name]
    ]


def check(project: Path) -> None:
    """BadInput when this environment is another than the keys say: a result would be recorded for versions that did not make it."""
    if lines := differences(project):
        raise BadInput(
            f"{'; '.join(lines)}. Results would be recorded for versions that did not make them. `make setup` installs what the lock "
            "says. If the change is wanted, put it into pyproject.toml and run `make lock`: it writes the locks and that file anew, "
            "and every stage counts as changed."
        )


def _installed(name: str) -> str:
    """A package's version without its build tag (2.13.0+cpu is 2.13.0)."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"
