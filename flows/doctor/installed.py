"""What is installed against what the project names: versions.yaml, pyproject.toml, the lock."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows.doctor.finding import Finding, Place, error, good, note, warning
from flows.upgrade import LOCKS, standing
from tasks.engine import versions

NAMED = 6
"""Packages that a line names."""
NONE = "not installed"


def numeric(place: Place) -> Iterator[Finding]:
    """params/versions.yaml, which is in every key: a run refuses to compute with other versions."""
    differ = versions.differences(place.project)
    for line in differ:
        yield error("versions", line, f"{install(LOCKS[0])}   # or, where the change is wanted: make lock")
    if not differ:
        yield good("versions", f"libraries and CPU kernels are those of {versions.FILE}")


def packages(place: Place) -> Iterator[Finding]:
    """Every package of the lock, and the direct ones of pyproject.toml, by the metadata of what is installed."""
    yield from _direct(place.project)
    pins = {name: _pins(place.project / name) for name in LOCKS if (place.project / name).is_file()}
    if not pins:
        yield note("packages", f"no {LOCKS[0]} here: what is installed is compared with pyproject.toml alone")
        return
    differ = {name: _differences(found) for name, found in pins.items()}
    lock = min(differ, key=lambda name: len(differ[name]))  # the one that was installed: they differ in the libraries of CUDA
    if other := differ[lock]:
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        yield warning("packages", f"not as {lock} says: {'; '.join(other[:NAMED])}{more}", install(lock))
    else:
        yield good("packages", f"the {len(pins[lock])} packages of {lock} are installed as it says")


def install(lock: str) -> str:
    """The command that installs what a lock says. `make setup` does it only for a lock that is newer than the environment."""
    return f"{shlex.quote(sys.executable)} -m pip install --requirement {lock}"


def _direct(project: Path) -> Iterator[Finding]:
    """What the code imports: a version outside of these ranges may end a run anywhere."""
    from packaging.requirements import Requirement

    path = project / "pyproject.toml"
    direct = tomllib.loads(path.read_text("utf-8"))["project"].get("dependencies", ()) if path.is_file() else ()
    for one in map(Requirement, direct):
        found = _installed(one.name)
        if found == NONE or not one.specifier.contains(found.partition("+")[0], prereleases=True):
            yield error("packages", f"{one.name} is {found}, and pyproject.toml wants {one.specifier or 'it'}", install(LOCKS[0]))


def _pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", path.read_text("utf-8"), re.MULTILINE)
    return dict(found)


def _differences(pins: Mapping[str, str]) -> list[str]:
    found = {name: _installed(name) for name in pins}
    return [
        f"{name} is {found[name]} and not {pin}" for name, pin in pins.items() if found[name].partition("+")[0] != pin.partition("+")[0]
    ]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NONE


def upgrade(place: Place) -> Iterator[Finding]:
    """How far a project is behind Cairn, as last fetched; nobody is asked."""
    if line := standing(place.project):
        yield note("upgrade", line)
