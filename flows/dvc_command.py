"""DVC as a program beside us: how it is called, who holds its locks, and whether its cache is our store."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine.locks import alive, is_held


def dvc(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC in the project, with this Python first on the path."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C in a terminal goes to the run alone, which stops DVC
    )


# --- its locks -------------------------------------------------------------------------------------------------------


def holders(project: Path) -> tuple[list[str], list[str]]:
    """(who holds DVC's locks now, what was left behind by processes that are gone), in words."""
    now, left = [], []
    folder = project / ".dvc" / "tmp"
    for number, command, paths in _entries(folder / "rwlock"):
        what = f"process {number} ({command}) holds {', '.join(sorted(paths)[:3])}{', ...' if len(paths) > 3 else ''}"
        if not alive(number):
            left.append(f"{what}, but it is gone; DVC forgets it by itself")
        elif (other := _other_program(number)) is not None:
            left.append(f"{what}, but that number belongs to another program now ({other}): delete .dvc/tmp/rwlock while no DVC runs")
        else:
            now.append(what)
    if (folder / "rwlock").exists() and _tree(folder / "rwlock") is None:
        left.append(".dvc/tmp/rwlock is damaged, as a kill leaves it: delete it while no DVC runs")
    if is_held(folder / "lock"):
        who = (folder / "lock").read_text(errors="replace").strip()
        now.append(f"process {who} holds the repository" if who else "a process that has just begun holds the repository")
    return now, left


def busy(project: Path, output: str) -> str:
    """Why DVC refused, in our words where a lock was the reason; else the last line of what it said."""
    if "busy" not in output and "acquire lock" not in output and "RWLock" not in output:
        lines = output.strip().splitlines()
        if lines and "not a git repository" in lines[-1]:
            return (
                "this folder is no git repository, and DVC asks for one: `git init` makes one, or `dvc config core.no_scm true` lets "
                "DVC do without; Cairn itself needs neither"
            )
        return lines[-1] if lines else "no message"
    now, left = holders(project)
    return "; ".join(now or left) or "another DVC held its lock, and has let go of it since"


def _entries(path: Path) -> list[tuple[int, str, set[str]]]:
    """(process, command, paths) of everybody whom DVC's file of locks names."""
    found: dict[tuple[int, str], set[str]] = {}
    for mode in ("write", "read"):
        for locked, infos in ((_tree(path) or {}).get(mode) or {}).items():
            for info in infos if isinstance(infos, list) else [infos]:
                if isinstance(info, Mapping) and isinstance(info.get("pid"), int):
                    found.setdefault((info["pid"], str(info.get("cmd"))), set()).add(str(locked))
    return [(number, command, paths) for (number, command), paths in sorted(found.items())]


def _tree(path: Path) -> Mapping[str, Any] | None:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return tree if isinstance(tree, Mapping) else None


def _other_program(process: int) -> str | None:
    """The command of a process that is no DVC; None when it may be one (Linux; elsewhere nobody can tell)."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return None if "dvc" in command or not command else command[:80]


# --- its cache -------------------------------------------------------------------------------------------------------


def check_cache(project: Path, state: Path) -> None:
    """BadInput when DVC keeps its cache elsewhere than Cairn its store: each would make again what the other has."""
    if not (project / ".dvc").is_dir():
        return
    theirs, source = cache_folder(project)
    ours = state / "store"
    if os.path.realpath(theirs) == os.path.realpath(ours):
        return
    other = f", or set CAIRN_HOME={shlex.quote(str(theirs.parent))}" if theirs.name == "store" else ""
    raise BadInput(
        f"DVC keeps its files in {theirs} ({source}) and Cairn in {ours}: `dvc repro` would run again what `cairn run` has done. "
        f"Run\ndvc config --local cache.dir {shlex.quote(str(ours))}\nso that both use one place{other}."
    )


def cache_folder(project: Path) -> tuple[Path, str]:
    """(DVC's cache folder, the file that says so), as DVC reads its four configuration files: the last one that names it wins."""
    folder, source = project / ".dvc" / "cache", "its default"
    local = ""
    for file in config_files(project):
        cache = sections(file).get("cache", {})
        if cache.get("dir"):
            folder, source = _resolved(file, cache["dir"]), str(file)
        local = cache.get("local") or local
    _, found = remotes(project)
    if local in found:
        return Path(found[local][0]), f"cache.local = {local}"
    return folder, source


def remotes(project: Path) -> tuple[str, dict[str, tuple[str, str]]]:
    """(name of the default remote, "" without one; name -> (its URL, a folder made whole; the file that says so))."""
    default, found = "", {}
    for file in config_files(project):
        for section, values in sections(file).items():
            if section == "core":
                default = values.get("remote") or default
            if section.startswith("remote ") and (url := values.get("url")):
                place = url if "://" in url else str(_resolved(file, url))
                found[section.removeprefix("remote ").strip("\"' ")] = (place, str(file))
    return default, found


def config_files(project: Path) -> list[Path]:
    """DVC's configuration: the machine's, the user's, the project's, and the project's of this machine; later ones win."""
    import platformdirs

    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    own = project / ".dvc"
    return [Path(system) / "config", Path(user) / "config", own / "config", own / "config.local"]


def _resolved(file: Path, text: str) -> Path:
    return Path(os.path.normpath(file.parent / os.path.expanduser(text)))


def sections(file: Path) -> dict[str, dict[str, str]]:
    """Sections of a configuration file; names in lower case, as DVC reads them."""
    from configobj import ConfigObj, ConfigObjError

    try:
        tree = ConfigObj(file.read_text(encoding="utf-8").splitlines(), list_values=False).dict()
    except FileNotFoundError:
        return {}
    except (ConfigObjError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: DVC cannot read its configuration: {error}") from None
    sections = {name.lower().strip("'"): values for name, values in tree.items() if isinstance(values, dict)}
    return {name: {key.lower(): str(value).strip("'\"") for key, value in values.items()} for name, values in sections.items()}
