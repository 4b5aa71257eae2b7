"""A dict that knows which of its values were handed out: what was not handed out cannot have been changed in place.

It holds real values and behaves as the dict that it stands for, but for its type (`type(x) is dict` is false). Copies of it (copy,
deepcopy, pickle, `|`) are plain dicts. Code in C that takes a dict apart past its methods reads the true values, but is not seen;
`cairn world check` compares every call with a whole copy, and so would find what such code changes.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any


class _Values(ValuesView[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in _pairs(self._mapping))  # type: ignore[attr-defined]

    def __reversed__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in reversed(self._mapping))  # type: ignore[attr-defined]


class _Items(ItemsView[Any, Any]):
    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return _pairs(self._mapping)  # type: ignore[attr-defined]

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return ((key, self._mapping[key]) for key in reversed(self._mapping))  # type: ignore[attr-defined]


def _pairs(rows: Rows) -> Iterator[tuple[Any, Any]]:
    for pair in dict.items(rows):
        rows.touched.add(pair[0])
        yield pair


class Rows(dict[Any, Any]):
    """A table. number: which one of its state. touched: keys whose values were handed out, set or taken away. moved: whether keys came,
    went or changed places."""

    __slots__ = ("moved", "number", "touched")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.touched, self.moved = number, set[Any](), False

    # --- for those who keep it ---------------------------------------------------------------------------------------------

    def keep(self, key: Any, value: Any) -> None:
        """Set a value unseen."""
        dict.__setitem__(self, key, value)

    def drop(self, key: Any) -> None:
        """Take a value out unseen."""
        dict.pop(self, key, None)

    def sort(self, keys: Any) -> None:
        """Bring its keys, all of which are there, into an order, unseen."""
        values = [dict.__getitem__(self, key) for key in keys]
        dict.clear(self)
        dict.update(self, zip(keys, values, strict=True))

    def held(self, key: Any) -> Any:
        """A value, unseen; KeyError for none."""
        return dict.__getitem__(self, key)

    def forget(self) -> None:
        """Nothing was handed out yet."""
        self.touched, self.moved = set(), False

    def _all(self) -> None:
        self.touched.update(self)

    # --- for everybody: values go out ---------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        self.touched.add(key)
        return dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, handed out."""
        self.touched.add(key)
        return dict.get(self, key, default)

    def __iter__(self) -> Iterator[Any]:  # that it is there makes dict(x), {**x} and update(x) ask for the values one by one
        return dict.__iter__(self)

    def values(self) -> Any:
        """The values, each handed out when it is come to."""
        return _Values(self)

    def items(self) -> Any:
        """The pairs, each handed out when it is come to."""
        return _Items(self)

    def copy(self) -> dict[Any, Any]:
        """A plain dict; all is handed out."""
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        self._all()
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        self._all()
        return dict.__repr__(self)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (), None, None, iter(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return other | self.copy() if isinstance(other, dict) else NotImplemented

    # --- for everybody: values come in, or leave ----------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        self.moved |= key not in self
        dict.__setitem__(self, key, value)
        self.touched.add(key)

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, key)
        self.moved = True
        self.touched.add(key)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a value out."""
        self.moved = True
        self.touched.add(key)
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[Any, Any]:
        """Take the last value out."""
        key, value = dict.popitem(self)
        self.moved = True
        self.touched.add(key)
        return key, value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of a key, set when there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **more: Any) -> None:
        """Set values, one by one as `x[key] = value` does."""
        for key, value in dict(*others, **more).items():
            self[key] = value

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def clear(self) -> None:
        """Take all out."""
        self._all()
        self.moved = True
        dict.clear(self)
