"""The drivers: the road as a Prefect flow, one stage for DVC, promotion, and the `cairn` command.

Every way into Cairn goes through this package, so the surroundings are fixed here, before a heavy library can load. Outside a
project nothing is fixed, and whoever needs a project says so.
"""

import sys
from pathlib import Path

from flows import interrupt

if Path(sys.argv[0]).name in ("cairn", "-m"):  # a command begins (`-m`: Python still looks for the module it was asked to run)
    interrupt.while_loading()

from tasks import start
from tasks.params import BadInput

OUTSIDE = ""
"""Why there is no project here; empty inside one."""

try:
    PROJECT = start.project_root()
except BadInput as _error:
    OUTSIDE = str(_error)
    PROJECT = Path.cwd()

STATE = start.state_root(PROJECT) if OUTSIDE else start.fix(PROJECT)
