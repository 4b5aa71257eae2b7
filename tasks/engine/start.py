"""The first thing every process of Cairn does: find the project, and fix the surroundings before a heavy library loads.

State of every library stays under the state root; telemetry is off; kernels and threads are fixed, because CPU results depend on
the instruction set and on the number of threads (law 4). Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote

MARKERS = ("dvc.yaml", "params/pipeline.yaml")


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current one) that is a Cairn project."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if all((folder / marker).is_file() for marker in MARKERS):
            return folder
    from tasks.contract.params import BadInput

    raise BadInput(f"{here} is not inside a Cairn project: no folder at or above it has {' and '.join(MARKERS)}.")


def state_root(project: Path) -> Path:
    """Where keys, bytes and the state of the libraries live.

    `CAIRN_HOME` when set; else `.cairn` of the checkout that DVC works for (`DVC_ROOT` names the main checkout even inside
    `dvc exp run --temp`, so experiments share the store); else `.cairn` of the project.
    """
    if home := os.environ.get("CAIRN_HOME"):
        return Path(home).resolve()
    return Path(os.environ.get("DVC_ROOT") or project).resolve() / ".cairn"


LONGEST = 480
"""Bytes of the state root's path: SQLite opens no file whose path is longer than 512, and the databases lie some folders below."""


def misplaced(state: Path) -> str:
    """Why the libraries that keep their state there cannot work under such a path; empty when they can."""
    text, why = str(state), ""
    try:
        text.encode()
    except UnicodeEncodeError:
        why = "it has bytes that are no UTF-8, and databases and JSON hold text"
    if not why and unquote(text) != text:
        why = f"MLflow takes a % with two hexadecimal digits for a quoted letter, and would write to {unquote(text)!r}"
    if ("'" in text and '"' in text) or re.search(r"(?<![:\w\\]):\w", text):
        why = "MLflow cannot write both kinds of quotes, or a colon after a mark, into its database"
    if len(os.fsencode(text)) > LONGEST:
        why = f"it has {len(os.fsencode(text))} bytes, and SQLite cannot open a database below a path of more than {LONGEST}"
    if any(ord(letter) < 32 for letter in text):
        why = "it has control characters"
    return why and f"state cannot be kept in {text!r}: {why}. Rename or move the folder, or set CAIRN_HOME to another place."


def check_place(state: Path) -> None:
    """Raise BadInput for a state root whose path a library cannot work with."""
    if why := misplaced(state):
        from tasks.contract.params import BadInput

        raise BadInput(why)


def surroundings(state: Path, threads: int = 1) -> dict[str, str]:
    """The environment of a Cairn process. What the user already set about places and servers stays (see `fix`)."""
    temporary = state / "tmp"
    prefect = Path(os.environ.get("PREFECT_HOME", state / "prefect"))
    asked = (
        {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database("sqlite+aiosqlite", prefect / "prefect.db")} if "?" in str(prefect) else {}
    )
    return {
        **asked,  # Prefect writes the path into a URL as it is
        # places
        "PREFECT_HOME": str(state / "prefect"),
        "DVC_SITE_CACHE_DIR": str(state / "dvc"),
        "HF_HOME": str(state / "huggingface"),
        "MPLCONFIGDIR": str(state / "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(state / "torch"),
        "TMPDIR": str(temporary),
        "MLFLOW_TRACKING_URI": database("sqlite", state / "mlflow.db"),
        # telemetry and look-ups on the network
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # the default 20 s is too short on a busy machine
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",  # a server in the run ends with it; below 1 it spins (int)
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        # quiet libraries: Cairn reports progress itself
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "GIT_PYTHON_REFRESH": "quiet",
        **kernels(threads),
    }


def database(driver: str, path: Path) -> str:
    """The URL of an SQLite database. Only a question mark means something in such a URL: a path with one is written as SQLite's own
    `file:` name, in which every letter can be quoted."""
    return f"{driver}:///{path}" if "?" not in str(path) else f"{driver}:///file:{quote(str(path))}?uri=true"


def kernels(threads: int, instructions: str = "avx2") -> dict[str, str]:
    """What makes CPU kernels repeatable: one instruction set for torch, oneDNN and MKL, and a fixed number of threads.

    instructions: the param. oneDNN alone heeds it: it multiplies in bfloat16, MKL in float32, whose bytes are the same with either.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": _ONEDNN[instructions],
        "MKL_CBWR": "AVX2",
        "PYTHONHASHSEED": "0",
    }


_ONEDNN = {"avx2": "AVX2", "avx512_bf16": "AVX512_CORE_BF16"}
_FIXED = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
)
_PROJECT_ONLY = ("TMPDIR",)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_found: dict[str, str] = dict(os.environ)
"""The environment as this process found it."""
_set_by_us: dict[str, str] = {}
"""What `fix` wants the environment to be. A process that Cairn started finds it in place: that is not a user's setting."""


def users_variables() -> dict[str, str]:
    """The environment's variables that are not Cairn's own doing."""
    return {name: value for name, value in _found.items() if _set_by_us.get(name) != value}


def fix(project: Path, threads: int = 1) -> Path:
    """Put the surroundings in place for this process and its children; returns the state root.

    Places and switches that the user set are respected; kernels and threads are not negotiable, they are part of the result.
    """
    state = state_root(project)
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))  # a world of the user's lies in the project folder, wherever the command was started
    _set_by_us.update(surroundings(state, threads), **_without_proxy())
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = _set_by_us[name]
    for name, value in surroundings(state, threads).items():
        if name in _FIXED or name in _PROJECT_ONLY:
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)
    with contextlib.suppress(OSError):  # whoever is about to write says so in words (artifact.check_writable)
        Path(os.environ["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    return state


def _without_proxy() -> dict[str, str]:
    """`no_proxy` in both spellings, with the user's hosts and this machine's own names: what runs here (Prefect's server, MLflow's, a
    model's) is never asked through a proxy, which would look for it on another machine."""
    named = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    hosts = ",".join(dict.fromkeys(host.strip() for host in (*named, *_LOOPBACK) if host.strip()))
    if "*" in hosts.split(","):
        hosts = "*"  # understood by everybody only when it stands alone
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def use_own_python(project: Path) -> None:
    """Continue in the project's environment when started by another Python (`dvc repro` without an activated environment)."""
    home = Path(os.environ.get("DVC_ROOT") or project)
    own = home / ".venv" / "bin" / "python"
    if own.exists() and Path(sys.prefix).resolve() != (home / ".venv").resolve() and "CAIRN_PYTHON" not in os.environ:
        os.environ["CAIRN_PYTHON"] = str(own)
        os.execv(own, [str(own), "-m", *_module_command()])


def _module_command() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    return [spec.name if spec else sys.argv[0], *sys.argv[1:]]


if __name__ == "__main__":  # `make setup` asks before it installs anything
    if _why := misplaced(state_root(Path.cwd())):
        sys.exit(f"cairn: {_why}")
