"""The drivers: the road as a Prefect flow, one stage for DVC, promotion, and the `cairn` command.

Every way into Cairn goes through this package, so the surroundings are fixed here, before a heavy library can load. Outside a
project nothing is fixed, and whoever needs a project says so.
"""

from tasks import start
from tasks.params import BadInput

try:
    PROJECT = start.project_root()
    STATE = start.fix(PROJECT)
except BadInput as _error:
    OUTSIDE: str = str(_error)
else:
    OUTSIDE = ""
