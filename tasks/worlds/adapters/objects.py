"""Worlds out of plain Python objects: their methods are the tools, their attributes the state.

    class Shop(from_object(make_shop, name="shop", policy=POLICY, writes=("cancel_order",), ends=("call_a_person",))):
        ...

Costs: a call pickles the rows that it was handed out of the tables (`tasks.worlds.adapters.copies`) and all that is no table, and shows
as JSON what of that has changed. Fork, reset, snapshot and restore cost nothing; the next call brings an object to the state that is
wanted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from tasks.contract.conventions import Conventions
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.worlds.adapters.adapted import Choice, adapted, digest
from tasks.worlds.adapters.answers import refusal
from tasks.worlds.adapters.foreign_state import DIFF_LINES, Real, Saved, SourceFailed
from tasks.worlds.adapters.functions import Callee, callee_of, tool_of
from tasks.worlds.adapters.kept_objects import ByHand, Copies, Keeper
from tasks.worlds.adapters.object_processes import Processes, late
from tasks.worlds.adapters.outside import Files, Outside, watched
from tasks.worlds.adapters.plain_data import NotPlain, View, steps_of
from tasks.worlds.adapters.real import RealObject
from tasks.worlds.adapters.shared_back_end import OneObject, Turns, start_of
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.adapters.time_limit import TookTooLong, limited
from tasks.worlds.adapters.unequal_states import between
from tasks.worlds.api.places import place
from tasks.worlds.api.state import Base
from tasks.worlds.api.tools import Refused, Tool

Sharing = Literal["side_by_side", "one_at_a_time", "own_process"]
_ANSWERS = View(inside=False)
LONGEST_CALL = 3600
"""Seconds; ours, as for servers."""


def from_object(
    factory: Callable[[], Any],
    *,
    name: str,
    policy: str,
    tools: Iterable[str] | None = None,
    writes: Iterable[str] = (),
    ends: Iterable[str] = (),
    produces: Mapping[str, Iterable[str]] | None = None,
    types: Mapping[str, Any] | None = None,
    leave_out: Iterable[str] = (),
    error_key: str = "",
    errors_begin: Iterable[str] = (),
    snapshot: Callable[[Any], Any] | None = None,
    restore: Callable[[Any, Any], None] | None = None,
    users: str = "",
    problems_file: Path | str | None = None,
    conventions: Conventions | None = None,
    real: Callable[[], Any] | None = None,
    disposable: bool = False,
    rounded: Mapping[str, float] | None = None,
    by_row: bool = True,
    conversations: Sharing = "side_by_side",
    call_seconds: float = 30.0,
) -> type[Any]:
    """A world class over what `factory()` makes: one object, or several as a dict by name (their methods are then one set of tools).

    factory:   called without arguments; must make equal objects every time.
    tools:     names of the methods that are offered; None for every public method.
    writes:    those that change the state. Any other that does is refused by name.
    ends:      those that end the conversation (hand over to a person).
    produces:  tool -> types of the ids in its answer, which other tools take as arguments of that name (edges of the API graph).
    types:     "tool.argument" -> type, for arguments whose annotation is missing or wrong.
    leave_out: patterns of what does not count (clocks, generated ids, logs, connections): of names of attributes and keys wherever they
               are ("*_at"), or of dotted paths as differences show them, where lists add nothing ("orders.*.history.at"). It is kept
               and restored with all else, but is no part of hash, difference and grading.
    rounded:   pattern -> step, for numbers with noise: they count as the nearest multiple of the step ({"accounts.*.balance": 0.01}).
    error_key: an answer that is a dict with something under this key (not None, False, 0 or empty) is a refusal, and that the reason.
    errors_begin: an answer that is text and begins so ("Error:") is a refusal.
    snapshot, restore: for objects that cannot be pickled: snapshot(object) gives JSON, restore(object, JSON) brings a fresh one to
               it. With several objects both get the dict.
    users:     dotted path of the state's table of users, which splits go by and generators draw from; by default the table that is
               named as people are, or else that to which most others belong.
    problems_file: problems as JSON lines (`tasks.worlds.adapters.problem_file`). There are no scripted humans: the role needs a model.
    conventions: how a person is identified, which tool hands over, what looks up, who confirms (`tasks.contract.conventions`).
    real:      makes the object with the real data, once, for `cairn serve --with-tools`, which never sets it back; factory by default.
               With several objects a dict of the same names. It need not be one that can be pickled.
    disposable: what the objects reach outside their process (a service, a database file, a file that they write) may be changed by
               every run and check. Without it no method that writes is called once that is seen (`tasks.worlds.adapters.outside`),
               nor is restore(), and no method changes a file that is there (where restore is given, it sets those back).
    by_row:    False copies the objects whole with every call, for code that takes its large dicts by their very type (`type(x) is
               dict`): they are `tasks.worlds.adapters.tracked_rows.Rows` otherwise, so that a call costs the rows that it touches.
    conversations: "side_by_side": every object has a state of its own. "one_at_a_time": objects share a service or a database, so calls
               of all processes of this machine take turns, each in the state of its own conversation. "own_process": objects share
               globals of their process, so each conversation's lives in another one. The last two need snapshot and restore, which
               must reach all that is shared. `cairn world check` finds what is declared wrong.
    call_seconds: longest that a call may take (`tasks.worlds.adapters.time_limit`). One that takes longer fails and changes nothing.

    An async method is waited for, each call in an event loop of its own. An exception of a method is a refusal with its message.
    Raises BadInput for what cannot be offered or kept, here or when the world is built.
    """
    if (snapshot is None) != (restore is None):
        raise BadInput(f"world {name}: snapshot and restore go together; give both or neither.")
    choice = _choice(name, tools, writes, ends, produces)
    beginnings = _texts(name, "errors_begin", errors_begin)
    by_hand = (snapshot, restore) if snapshot and restore else None
    view = View(_texts(name, "leave_out", leave_out), rounded=steps_of(f"world {name}", rounded or {}))
    calling = (dict(types or {}), view, error_key, beginnings, by_hand)
    _check_sharing(name, conversations, by_hand is not None)
    if isinstance(call_seconds, bool) or not isinstance(call_seconds, int | float) or not 0 < call_seconds <= LONGEST_CALL:
        raise BadInput(f"world {name}: call_seconds = {call_seconds!r} must be above 0 and at most {LONGEST_CALL}.")
    source = Objects(name, factory, choice, *calling, real or factory, disposable, by_row, conversations, call_seconds)
    made = adapted(
        source,
        name=name,
        policy=policy,
        users=users,
        problems_file=problems_file,
        writes=choice.writes,
        where=f"world {name}",
        conventions=conventions,
    )
    made.WAITS, made.SIDE_BY_SIDE = conversations == "own_process", int(conversations == "one_at_a_time")
    return made


def _choice(name: str, tools: Any, writes: Any, ends: Any, produces: Any) -> Choice:
    """The named tools as tuples. Raises BadInput for a text where several names belong."""
    made = {tool: tuple(kinds) for tool, kinds in (produces or {}).items()}
    asked = None if tools is None else _texts(name, "tools", tools)
    return Choice(asked, _texts(name, "writes", writes), _texts(name, "ends", ends), made, f"world {name}")


def _texts(name: str, word: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        raise BadInput(f"world {name}: {word} = {names!r} is one text; write ({names!r},).")
    return tuple(names)


def _check_sharing(name: str, conversations: str, by_hand: bool) -> None:
    known = get_args(Sharing)
    if conversations not in known:
        raise BadInput(f"world {name}: conversations = {conversations!r}: must be one of {', '.join(map(repr, known))}.")
    if conversations != known[0] and not by_hand:
        raise BadInput(f"world {name}: conversations = {conversations!r} needs snapshot= and restore=, which reach what objects share.")


class Objects:
    """A `Source` over Python objects."""

    def __init__(
        self,
        name: str,
        factory: Callable[[], Any],
        choice: Choice,
        types: Mapping[str, Any],
        view: View,
        error_key: str,
        errors_begin: tuple[str, ...],
        by_hand: tuple[Callable[[Any], Any], Callable[[Any, Any], None]] | None,
        real: Callable[[], Any],
        disposable: bool = False,
        by_row: bool = True,
        conversations: Sharing | Literal["here"] = "side_by_side",
        call_seconds: float = 30.0,
    ) -> None:
        self._call_seconds = call_seconds
        self._real, self._disposable = real, disposable
        self._files: Files = "free" if by_hand or disposable else "seen"  # restore() is there to set back files, too
        self._reaches = ""  # what the objects were seen to reach outside this process
        self._where, self._factory, self._choice, self._view = f"world {name}", factory, choice, view
        self._types, self._error_key, self._errors_begin, self._by_hand = types, error_key, errors_begin, by_hand
        self._callees: dict[tuple[type, str], Callee] = {}
        self._turns = Turns(f"{name} {_address(factory)}", self._where) if conversations == "one_at_a_time" else None
        self._processes: Processes | None = None
        self._keeper: Keeper
        if by_hand is None:
            self._keeper = Copies(self._where, view, _parts, by_row)
            return
        self._by_hand_keeper = ByHand(self._where, view, self._made, *by_hand)
        one = conversations != "side_by_side"
        self._keeper = OneObject(self._by_hand_keeper, self._made, self._turns) if one else self._by_hand_keeper
        if conversations == "own_process":
            calling: dict[str, Any] = {"name": name, "factory": factory, "choice": choice, "types": {}, "view": view, "real": factory}
            calling |= {"error_key": error_key, "errors_begin": errors_begin, "by_hand": by_hand, "disposable": disposable}
            calling |= {"conversations": "here", "call_seconds": call_seconds}
            self._processes = Processes(self._where, calling, call_seconds)

    # --- the source --------------------------------------------------------------------------------------------------------

    def tools(self) -> Mapping[str, Tool]:
        """The chosen methods, by name."""
        return self._tools

    @functools.cached_property
    def _tools(self) -> Mapping[str, Tool]:
        live = self._made()
        asked = self._choice.tools or ()
        found: dict[str, Callable[..., Any]] = {}
        for part, value in _parts(live).items():
            for name in dict.fromkeys((*_methods(value), *(one for one in asked if callable(getattr(value, one, None))))):
                if name in found and (self._choice.tools is None or name in self._choice.tools):
                    raise BadInput(f"{self._where}: {part or 'the object'} and another one both have a method {name!r}. Rename one.")
                found[name] = getattr(value, name)
        offered = self._choice.names(found)
        for path in self._types:
            if path.partition(".")[0] not in offered:
                raise BadInput(f"{self._where}: types names {path!r}, which is no tool.argument.{nearest(path, offered)}")
        return {
            name: tool_of(
                name,
                found[name],
                self._choice.kind(name),
                self._choice.produces.get(name, ()),
                f"tool {name!r} of {self._where} ({type(getattr(found[name], '__self__', None)).__qualname__})",
                {path.partition(".")[2]: kind for path, kind in self._types.items() if path.partition(".")[0] == name},
            )
            for name in offered
        }

    def codes(self) -> dict[str, str]:
        """Tool -> digest of its method's source, with the class that it is defined in; without those whose source cannot be read."""
        found = {}
        for name in self.tools():
            part = next(value for value in _parts(self._made()).values() if hasattr(value, name))
            with contextlib.suppress(OSError, TypeError):
                found[name] = digest(inspect.getsource(getattr(type(part), name)))
        return found

    def place(self, name: str) -> str:
        """File and line of the method."""
        found = [getattr(value, name) for value in _parts(self._made()).values() if hasattr(value, name)]
        return place(found[0]) if found else ""

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Nothing, since the factory makes the start; the start where what objects share may hold anything when a process begins."""
        return {} if self._keeper is getattr(self, "_by_hand_keeper", self._keeper) else start_of(self._start.token)

    def start(self, base: Base) -> Saved:
        """What was frozen, or what the factory makes. Raises BadInput when that is not the same twice, or no state that can be kept."""
        if "start" not in base.tables or isinstance(self._keeper, Copies):
            return self._start
        return self.saved(base.tables["start"]["dump"]["json"])

    @functools.lru_cache(maxsize=8)
    def saved(self, token: str) -> Saved:
        """A state that was dumped."""
        return self._by_hand_keeper.saved(token)

    @functools.cached_property
    def _start(self) -> Saved:
        with self._turn():
            first, second = (self._keeper.first(self._made()) for _ in range(2))
        if not first.content.same(second.content):
            changed = text_diff(first.content, second.content, DIFF_LINES).replace("\n", "; ")
            raise BadInput(
                f"{self._where}: factory() makes a different state each time ({changed}). "
                + between(text_diff(first.content, second.content))
            )
        return first

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, Saved]:
        """Run a method on an object in this state."""
        if self._processes is not None:
            answer, token = self._processes.call(saved, name, arguments, kind)
            return answer, saved if token == saved.token else self._by_hand_keeper.saved(token)
        try:
            with (
                watched(kind != "read" and not self._disposable, "kept" if self._files == "seen" else "free") as seen,
                self._keeper.at(saved, restored=not self.protected("")) as held,
            ):
                answer, after = self._answer_in_time(held.root, name, arguments), held.after()
        except Outside as error:
            self._reaches = str(error)
            raise SourceFailed(f"tool {name!r} was not called: {self.protected(name)}") from None
        except BadInput as error:
            raise SourceFailed(f"tool {name!r} of {self._where}: {error}") from None
        self._reaches = self._reaches or next(iter(seen), "")
        return answer, after

    def audit(self, saved: Saved, name: str, tool: Tool, arguments: Any) -> str:
        """What a call has changed that was not found by what it was handed: "" for nothing, and for a call that is refused."""
        if not isinstance(self._keeper, Copies) or self.protected(name):
            return ""
        with contextlib.suppress(Refused, SourceFailed, BadInput), self._keeper.at(saved, restored=True) as held:
            self._answer_in_time(held.root, name, tool.validate(arguments))
            return text_diff(held.after().content, self._keeper.content(held.root), DIFF_LINES).replace("\n", "; ")
        return ""

    def copied(self) -> str:
        """How the state is copied, in words."""
        return self._keeper.copied(self._start)

    def left_out(self) -> tuple[str, ...]:
        """Patterns of what was declared not to count in the state."""
        return self._view.leave_out

    def code_by_tool(self) -> dict[str, Callable[..., Any]]:
        """Tool -> the function that is its method, without those that are no Python."""
        methods = {name: getattr(part, name) for part in _parts(self._made()).values() for name in self.tools() if hasattr(part, name)}
        functions = {name: inspect.unwrap(getattr(method, "__func__", method)) for name, method in methods.items()}
        return {name: function for name, function in functions.items() if inspect.isfunction(function)}

    @property
    def side_by_side(self) -> bool:
        """Whether every object is declared to have a state of its own."""
        return self._turns is None and self._processes is None

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns of leave_out and rounded that nothing has fitted so far (`View.unmet`)."""
        return self._view.unmet()

    def content(self, root: Any) -> Content:
        """What counts of an object's state; nothing is copied. BadInput for what is no data."""
        return self._keeper.content(root)

    def _answer_in_time(self, live: Any, name: str, arguments: dict[str, Any]) -> Any:
        try:
            with limited(self._call_seconds):
                return self.answer(live, name, arguments)
        except TookTooLong:
            raise SourceFailed(late(self._where, name, self._call_seconds)) from None

    def answer(self, live: Any, name: str, arguments: dict[str, Any]) -> Any:
        """What a method of an object answers, as JSON. Raises Refused, or SourceFailed for an answer that is no data."""
        part = next(value for value in _parts(live).values() if hasattr(value, name))
        function = getattr(part, name)
        placed, named = self._callee(type(part), name, function).arguments(arguments)
        try:
            answer = function(*placed, **named)
            answer = asyncio.run(answer) if inspect.iscoroutine(answer) else answer
        except Refused:
            raise
        except (Exception, SystemExit) as error:  # the edge to the object's own code: what it raises is its answer
            raise Refused(f"{type(error).__name__}: {error}") from None
        try:
            shown = _ANSWERS.plain(answer)
        except NotPlain as error:
            raise SourceFailed(
                f"tool {name!r} of {self._where}: its answer: {error}. Return text, or a dict or list of values."
            ) from None
        if reason := refusal(shown, self._error_key, self._errors_begin):
            raise Refused(reason)
        return shown

    def protected(self, name: str) -> str:
        """Objects that reach something outside this process are no copies, whatever is done to them."""
        if self._disposable or not self._reaches:
            return ""
        return (
            f"it may change what the objects of {self._where} reach ({self._reaches}), which was not declared disposable. Pass "
            "disposable=True if nobody minds, or let the factory make objects that reach a copy."
        )

    def kept_apart(self) -> str:
        """How the sharing of objects is declared."""
        return (
            'Objects that share a service or database: conversations="one_at_a_time"; globals, or attributes of classes: '
            'conversations="own_process"; both with snapshot= and restore=, which reach all that is shared. Or let the factory make '
            "objects that share nothing."
        )

    def real(self) -> Real:
        """The object with the real data, made now. BadInput for one that cannot be made or lacks a tool's method."""
        try:
            held = self._turns.held(0) if self._turns is not None and self._real is self._factory else None
        except SourceFailed as error:
            raise BadInput(f"{error} What is real can be another back end: real=.") from None
        try:
            live = self._real()
        except (Exception, SystemExit) as error:
            raise BadInput(f"{self._where}: real() failed: {type(error).__name__}: {error}") from error
        parts = _parts(live)
        if missing := next((name for name in self.tools() if not any(hasattr(part, name) for part in parts.values())), ""):
            raise BadInput(f"{self._where}: real() makes an object without a method {missing!r}, which is a tool.")
        kind = ", ".join(type(part).__qualname__ for part in parts.values())
        made = getattr(self._real, "__qualname__", type(self._real).__qualname__)
        return RealObject(f"the object that {made}() made in this process ({kind})", self, live, held=held)

    def _turn(self) -> contextlib.AbstractContextManager[Any]:
        """What objects share, for this thread alone: making one may change it."""
        return self._turns.taken() if self._turns is not None else contextlib.nullcontext()

    def _callee(self, cls: type, name: str, function: Callable[..., Any]) -> Callee:
        """How a method is called; read once."""
        if (cls, name) not in self._callees:
            self._callees[cls, name] = callee_of(function)
        return self._callees[cls, name]

    def _made(self) -> Any:
        try:
            with self._turn(), watched(files=self._files) as seen:
                live = self._factory()
                if self._turns is not None:  # making an object may set back what all share
                    self._turns.disturbed = True
            self._reaches = self._reaches or next(iter(seen), "")
            return live
        except (Exception, SystemExit) as error:
            raise BadInput(f"{self._where}: factory() failed: {type(error).__name__}: {error}") from error


def _address(factory: Callable[..., Any]) -> str:
    return f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', type(factory).__qualname__)}"


def _parts(live: Any) -> dict[str, Any]:
    """The objects by name; one alone has the name ""."""
    return dict(live) if type(live) is dict else {"": live}


def _methods(value: Any) -> list[str]:
    """Names of the public methods that are written in Python, in the order of their definition."""
    kinds = (staticmethod, classmethod)
    names = [
        name
        for base in reversed(type(value).__mro__)
        for name, member in vars(base).items()
        if inspect.isfunction(member) or isinstance(member, kinds)
    ]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]
