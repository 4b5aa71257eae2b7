"""Whether rows share objects, found without walking through them one by one: by what the garbage collector knows of who holds whom."""

from __future__ import annotations

import datetime
import enum
import functools
import gc
from collections.abc import Iterable
from decimal import Decimal
from itertools import compress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any
from uuid import UUID

VALUES = frozenset(
    {str, int, float, bool, type(None), bytes, complex, Decimal, UUID, range, type(...)}
    | {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, type, FunctionType, BuiltinFunctionType, ModuleType}
)
"""Kinds of values that nothing can change, so that it does not matter who else holds one."""
_HOLDERS = frozenset({dict, list, set, frozenset, tuple})


class _Objects(dict[type, bool]):
    """Kind -> whether something may change its objects."""

    def __missing__(self, kind: type) -> bool:
        return kind not in VALUES


_OBJECTS = _Objects(dict.fromkeys(VALUES, False) | dict.fromkeys(_HOLDERS, True))


def is_value(value: Any) -> bool:
    """Whether it does not matter who else holds it."""
    return type(value) in VALUES or isinstance(value, enum.Enum | type) or value == ()


def surely_apart(rows: Iterable[Any], taken: set[int]) -> bool:
    """Whether no object is held twice by these rows and those with the ids `taken`. False also for rows of which that is not known:
    they hold objects that say themselves how they are pickled, or one object twice."""
    seen, layer = set(taken), [row for row in rows if not is_value(row)]
    while layer:
        found = set(map(id, layer))
        if len(found) != len(layer) or not found.isdisjoint(seen) or not all(_known(kind) for kind in set(map(type, layer))):
            return False
        seen |= found
        held = gc.get_referents(*layer)
        held = list(compress(held, map(_OBJECTS.__getitem__, map(type, held))))  # without the values, which are most
        layer = [value for value in held if type(value) in _HOLDERS and value != ()] + [
            value for value in held if type(value) not in _HOLDERS and not isinstance(value, enum.Enum | type)
        ]
    return True


def _known(kind: Any) -> bool:
    return kind in _HOLDERS or _plainly_pickled(kind)


@functools.lru_cache(maxsize=1024)
def _plainly_pickled(kind: Any) -> bool:
    """Whether pickling an object of a class takes its attributes and nothing else."""
    if "__pydantic_fields__" in vars(kind):
        return all(
            base.__module__.startswith("pydantic.") for base in kind.__mro__ if "__getstate__" in vars(base) and base is not object
        )
    own = [base for base in kind.__mro__ if base is not object]
    hooks = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
    return not any(hook in vars(base) for base in own for hook in hooks) and not any(base in (dict, list, set, tuple) for base in own)
