"""What a run inherits from its surroundings: every setting that Cairn or a library of it heeds or overrides, its origin, its effect.

A shell profile, another project's `.env`, a container image or a Prefect profile may set them, long forgotten. `cairn status` and
`cairn doctor` list them all; a run says those that change where things go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine import start


@dataclass(frozen=True)
class Setting:
    """One inherited setting. origin: where it was set, in words. moves: it changes where things are kept or shown."""

    name: str
    value: str
    origin: str
    effect: str
    moves: bool = False

    def __str__(self) -> str:
        return f"{self.name}={printable(self.name, self.value)} ({self.origin}): {self.effect}"


MOVES = {
    "CAIRN_HOME": "keys, bytes and the state of all libraries are kept there instead of in .cairn/",
    "DVC_ROOT": "set by DVC: state is kept in the .cairn/ of that checkout",
    "PREFECT_API_URL": "runs are shown by that server; without it a run starts one of its own",
    "PREFECT_HOME": "Prefect's profiles, results and database are kept there instead of in .cairn/prefect",
    "PREFECT_API_DATABASE_CONNECTION_URL": "the run's own Prefect server keeps its records there",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "the run's own Prefect server keeps its records there",
    "PREFECT_LOCAL_STORAGE_PATH": "Prefect keeps its handles of results there",
    "PREFECT_PROFILE": "Prefect's settings are those of this profile",
    "PREFECT_PROFILES_PATH": "Prefect's profiles are read from there",
    "MLFLOW_TRACKING_URI": "runs and models are recorded there; without it in .cairn/mlflow.db",
    "MLFLOW_REGISTRY_URI": "models are registered there",
    "DVC_SITE_CACHE_DIR": "DVC's own temporary files are kept there instead of in .cairn/dvc",
    "DVC_GLOBAL_CONFIG_DIR": "DVC reads its user's configuration there",
    "DVC_SYSTEM_CONFIG_DIR": "DVC reads the machine's configuration there",
    "HF_HOME": "Hugging Face keeps what it fetches there instead of in .cairn/huggingface",
    "HF_HUB_CACHE": "Hugging Face keeps what it fetches there",
}
"""What changes where things go, and how."""

_THREADS = "overridden: the param `threads` says how many, because results depend on it"
_KERNELS = "overridden: the instruction set is part of every key"
_PROXY = "servers outside this machine are asked through it; this machine's own never"
HEEDED = {
    "CUDA_VISIBLE_DEVICES": "the GPUs that trainings may use; each takes one",
    "PYTHONPATH": "modules there are found before installed ones, after the project's own",
    "CAIRN_PYTHON": "`dvc repro` runs stages with this Python",
    "CAIRN_REFRESH": "`dvc repro` computes stages anew though they are cached",
    "CAIRN_DEBUG": "failures show their traceback",
    "HF_HUB_OFFLINE": "0 lets Hugging Face ask the network",
    "HF_TOKEN": "Hugging Face is asked with it, where it may use the network",
    "HF_ENDPOINT": "Hugging Face is asked there, where it may use the network",
    "HF_DATASETS_OFFLINE": "0 lets datasets ask the network",
    "TRANSFORMERS_OFFLINE": "0 lets transformers ask the network",
    "MLFLOW_EXPERIMENT_NAME": "overridden: runs go into the experiment `cairn`",
    "MLFLOW_EXPERIMENT_ID": "overridden: runs go into the experiment `cairn`",
    "MLFLOW_RUN_ID": "overridden: each run of the road is an MLflow run of its own",
    "PREFECT_API_KEY": "Prefect's server is asked with it",
    "PREFECT_API_AUTH_STRING": "Prefect's server is asked with it",
    "TMPDIR": "overridden: temporary files are kept in .cairn/tmp",
    "OMP_NUM_THREADS": _THREADS,
    "MKL_NUM_THREADS": _THREADS,
    "OPENBLAS_NUM_THREADS": _THREADS,
    "ATEN_CPU_CAPABILITY": _KERNELS,
    "ONEDNN_MAX_CPU_ISA": _KERNELS,
    "MKL_CBWR": _KERNELS,
    "PYTHONHASHSEED": "no result depends on it",
    **{name: _PROXY for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")},
}
"""What is heeded or overridden without moving anything."""

LIBRARIES = {
    "PREFECT_": "Prefect heeds it",
    "MLFLOW_": "MLflow heeds it",
    "DVC_": "DVC heeds it",
    "HF_": "Hugging Face's libraries heed it",
    "TRANSFORMERS_": "transformers heeds it",
}
"""Prefix of a library's other variables -> what is said of them."""

_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|AUTH", re.IGNORECASE)


def printable(name: str, value: str) -> str:
    """A value that may be printed: secrets are not, nor passwords inside URLs, nor long texts."""
    if _SECRET.search(name):
        return "(not shown)"
    value = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:...@", value)
    return value if len(value) <= 200 else f"{value[:200]}..."


def everything() -> list[Setting]:
    """All inherited settings: those of the environment, then those that Prefect finds in files."""
    return [*_environment(), *_prefect_files()]


def moving() -> list[Setting]:
    """Those that change where things go; of one that is set twice the one that wins."""
    found: dict[str, Setting] = {}
    for one in everything():
        if one.moves:
            found.setdefault(one.name, one)
    return list(found.values())


def of_prefect(name: str) -> Setting | None:
    """A setting of Prefect's, wherever it looks for one, such as PREFECT_API_URL; None when nobody set it (or set it to nothing)."""
    found = next((one for one in everything() if one.name == name), None)
    return found if found and found.value else None


def _environment() -> Iterator[Setting]:
    for name, value in sorted(start.users_variables().items()):
        upper = name.upper() if name.upper().startswith("PREFECT_") else name  # Prefect alone reads names in any case
        if upper in MOVES:
            yield Setting(upper, value, "environment", MOVES[upper], moves=True)
        elif upper in HEEDED:
            yield Setting(name, value, "environment", HEEDED[upper])
        elif prefix := next((one for one in LIBRARIES if upper.startswith(one)), ""):
            yield Setting(name, value, "environment", LIBRARIES[prefix])


def _prefect_files() -> Iterator[Setting]:
    """Prefect's settings in files, in the order in which it looks: .env, prefect.toml, pyproject.toml, the active profile."""
    here = Path.cwd()
    for path in (here / ".env",):
        for name, value in _dotenv(path).items():
            if name.upper().startswith("PREFECT_"):
                yield _prefect(name.upper(), value or "", f"the file {path}, which Prefect reads")
    for path, table in ((here / "prefect.toml", ()), (here / "pyproject.toml", ("tool", "prefect"))):
        for name, value in _flat(_table(_toml(path), table)):
            yield _prefect(f"PREFECT_{name}", value, f"the file {path}, which Prefect reads")
    path = _profiles_path(here)
    profiles = _toml(path)
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    for name, value in _table(profiles, ("profiles", active)).items():
        yield _prefect(name.upper(), str(value), f"Prefect's profile {active!r} in {path}")


def _prefect(name: str, value: str, origin: str) -> Setting:
    return Setting(name, value, origin, MOVES.get(name) or HEEDED.get(name) or LIBRARIES["PREFECT_"], moves=name in MOVES)


def _profiles_path(here: Path) -> Path:
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return Path(
        os.environ.get("PREFECT_PROFILES_PATH")
        or _dotenv(here / ".env").get("PREFECT_PROFILES_PATH")
        or _toml(here / "prefect.toml").get("profiles_path")
        or _table(_toml(here / "pyproject.toml"), ("tool", "prefect")).get("profiles_path")
        or home / "profiles.toml"
    )


def _dotenv(path: Path) -> dict[str, str | None]:
    if not path.is_file():
        return {}
    import dotenv

    try:
        return dict(dotenv.dotenv_values(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: Prefect reads this file, and it cannot be read ({error}). Mend it, or move it away.") from None


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: Prefect reads this file, and it is not valid TOML ({error}). Mend it, or move it away.") from None


def _table(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found: Any = tree
    for name in names:
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return dict(found) if isinstance(found, Mapping) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested tables as variables' names: {api: {url: x}} is API_URL."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}_".upper())
        else:
            yield f"{prefix}{name}".upper(), str(value)
