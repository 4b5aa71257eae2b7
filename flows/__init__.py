"""The drivers: the road as a Prefect flow, one stage for DVC, promotion, and the `cairn` command.

Every way into Cairn goes through this package, so the surroundings are fixed here, before a heavy library can load. Outside a
project nothing is fixed, and whoever needs a project says so.
"""

import sys
from pathlib import Path

from flows import interrupt

if Path(sys.argv[0]).name in ("cairn", "-m"):  # a command begins (`-m`: Python still looks for the module it was asked to run)
    interrupt.while_loading()

CODE = str(Path(__file__).resolve().parents[1])
if sys.path[:1] != [CODE]:  # before PYTHONPATH and the current folder, where another project's `tasks` may lie
    sys.path.insert(0, CODE)

import tasks  # noqa: E402

if str(Path(str(tasks.__file__)).resolve().parents[1]) != CODE:
    print(f"cairn: `tasks` was loaded from {tasks.__file__}, not from {CODE}. Take that folder off Python's path.", file=sys.stderr)
    sys.exit(2)

from tasks.engine import start  # noqa: E402

OUTSIDE = ""
"""Why there is no project here; empty inside one."""

try:
    PROJECT = start.project_root()
except Exception as _error:  # BadInput, whose module takes its time to load: most commands are given inside a project
    from tasks.contract.params import BadInput

    if not isinstance(_error, BadInput):
        raise
    OUTSIDE = str(_error)
    PROJECT = Path.cwd()

if not OUTSIDE and str(PROJECT) != CODE and (PROJECT / "flows/__init__.py").is_file():  # keys would name that code, and this would run
    print(
        f"cairn: {PROJECT} has code of its own, and this is the `cairn` of {CODE}. "
        f"There it is {PROJECT}/.venv/bin/cairn, which `make setup` in that folder makes.",
        file=sys.stderr,
    )
    sys.exit(2)

STATE = start.state_root(PROJECT) if OUTSIDE else start.fix(PROJECT)
