"""The operations of one HTTP service as a `Source` (`tasks.worlds.adapters.foreign_state`), and the service as it really is."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.worlds.adapters import openapi_spec
from tasks.worlds.adapters.foreign_state import DIFF_LINES, Real, Saved, SourceDown, SourceFailed
from tasks.worlds.adapters.openapi_answers import answer_of
from tasks.worlds.adapters.openapi_choice import Choosing, choose
from tasks.worlds.adapters.openapi_http import Credentials, Service
from tasks.worlds.adapters.openapi_operations import Operation, named, operation
from tasks.worlds.adapters.openapi_operations import listed as operations_of
from tasks.worlds.adapters.openapi_processes import Process, Processes
from tasks.worlds.adapters.openapi_requests import prepared
from tasks.worlds.adapters.openapi_state import Mark, Turns, Ways, fingerprint
from tasks.worlds.adapters.plain_data import NotPlain, View
from tasks.worlds.adapters.schemas import tool_of_schema
from tasks.worlds.adapters.server_file import without_secrets
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.adapters.state_rows import StatesByRow
from tasks.worlds.api.state import Base, canonical_json
from tasks.worlds.api.tools import Refused, Tool

At = Mark | Process
START, SERVICE = "start", "service"
"""The frozen tables: the state to begin with; what the operations and files were when the world was frozen."""
NOTHING_READ = Content("{}")
"""What is compared of a state of which nothing is read."""
HANDED_OVER = "a person takes over"
_SUMMARY = {
    "type": "object",
    "properties": {"summary": {"type": "string", "description": "What the person needs to know."}},
    "required": [],
    "additionalProperties": False,
}


class Operations:
    """A `Source` over the operations of one service."""

    def __init__(
        self,
        *,
        where: str,
        spec: Path | str | Mapping[str, Any],
        choosing: Choosing,
        local_ends: Mapping[str, str],
        produces: Mapping[str, tuple[str, ...]],
        credentials: Credentials,
        places: Turns | Processes,
        ways: Ways,
        view: View,
        disposable: bool,
        real: Service | None,
    ) -> None:
        self._where, self._spec, self._choosing, self._local_ends = where, spec, choosing, local_ends
        self._produces, self._credentials, self._places, self._ways = produces, credentials, places, ways
        self._states = StatesByRow(view)
        self._disposable, self._real = disposable, real
        self._restorable = bool(ways.reset) or isinstance(places, Processes)
        self._started: tuple[Base, Saved] | None = None
        self._proven = False  # that the service begins as it was frozen

    # --- the source --------------------------------------------------------------------------------------------------------

    def tools(self) -> Mapping[str, Tool]:
        """The chosen operations, and the local ends, by name. Raises BadInput."""
        return self._tools

    @functools.cached_property
    def _read(self) -> Mapping[str, tuple[Operation, Kind]]:
        """Name -> (operation, kind). Every operation that cannot be used is named at once."""
        spec = self._description()
        chosen = choose(operations_of(spec), self._choosing)
        found: dict[str, tuple[Operation, Kind]] = {}
        wrong: list[str] = []
        skipped: list[str] = []
        for name, (one, kind) in chosen.tools.items():
            try:
                made = operation(spec, one, self._credentials.hidden())
            except (BadInput, RecursionError) as error:
                wrong.append(
                    str(error) if isinstance(error, BadInput) else f"{spec.where}: {one.call}: nested deeper than can be followed."
                )
                continue
            if made.unsendable and not {name, one.id, one.call}.isdisjoint(self._choosing.operations or ()):
                wrong.append(f"{self._where}: {name!r} ({one.call}) can be called by nobody: {made.unsendable}.")
            elif made.unsendable:
                skipped.append(f"{name} ({made.unsendable})")
            else:
                found[name] = made, kind
        if wrong:
            raise BadInput("\n".join(wrong))
        if not found:
            raise BadInput(f"{self._where}: there is no operation to offer: {'; '.join(skipped)}.")
        for what, listed in (("dangerous and not named in allow", chosen.off), ("which no tool call can send", skipped)):
            if listed:
                logging.getLogger(__name__).warning("%s: not offered, %s: %s.", self._where, what, ", ".join(listed))
        return found

    def _description(self) -> openapi_spec.Spec:
        """The description; of a service that is started here perhaps its own."""
        if not isinstance(self._spec, str) or "{port}" not in self._spec:
            return openapi_spec.read(self._spec, self._where)
        with self._plainly() as at:
            return openapi_spec.read(self._spec.replace("{port}", at.service.port), self._where)

    @functools.cached_property
    def _tools(self) -> Mapping[str, Tool]:
        tools: dict[str, Tool] = {}
        wrong: list[str] = []
        for name in self._produces:
            if name not in self._read:
                wrong.append(f"{self._where}: produces names {name!r}.{nearest(name, self._read)} Tools: {', '.join(self._read)}.")
        for name, (one, kind) in self._read.items():
            where = f"tool {name!r} of {self._where} ({one.listed.call})"
            try:
                produced = self._produces.get(name, one.gives)
                tools[name] = tool_of_schema(name, one.description, one.parameters, kind, produced, where)
            except BadInput as error:
                wrong.append(str(error))
        for name, description in self._local_ends.items():
            if named(name) != name or name in self._read:
                why = "is an operation of the service" if name in self._read else f"is no tool's name; {named(name)!r} would be one"
                wrong.append(f"{self._where}: local_ends: {name!r} {why}.")
                continue
            tools[name] = tool_of_schema(name, description, _SUMMARY, "end", (), f"tool {name!r} of {self._where}")
        if wrong:
            raise BadInput("\n".join(wrong))
        self._credentials.check()
        return tools

    def __contains__(self, name: object) -> bool:
        """Whether it is a tool that writes."""
        return name in self._read and self._read[str(name)][1] == "write"

    def place(self, name: str) -> str:
        """The description, and what it calls the tool."""
        source = "the description" if isinstance(self._spec, Mapping) else Path(without_secrets(str(self._spec))).name
        return f"{source}: {self._read[name][0].listed.call}" if name in self._read else self._where

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The start, and what the operations and files are now: later plays compare."""
        self.tools()
        return {START: {"state": {"value": self._fresh()}}, SERVICE: {"fingerprints": self._fingerprints}}

    @functools.cached_property
    def _fingerprints(self) -> dict[str, str]:
        """Tool or file -> what tells it from another version."""
        said = {name: canonical_json([one.listed.call, one.body, one.parameters, kind]) for name, (one, kind) in self._read.items()}
        return {**{name: fingerprint(text.encode()) for name, text in said.items()}, **self._ways.files()}

    def start(self, base: Base) -> Saved:
        """The frozen start. Raises BadInput, with the names, when operations or files are not what was frozen."""
        if self._started is None or self._started[0] is not base:
            frozen = base.tables[SERVICE]["fingerprints"]
            now = self._fingerprints
            changed = [name for name in dict.fromkeys((*frozen, *now)) if frozen.get(name) != now.get(name)]
            if changed:
                raise BadInput(
                    f"{self._where}: changed since it was frozen: {', '.join(changed[:12])}{' ...' if len(changed) > 12 else ''} "
                    "(operations of its description, or files that set the service back). Run the step that froze it again."
                )
            self._started = base, Saved((), self._compared(json.loads(canonical_json(base.tables[START]["state"]["value"]))))
        return self._started[1]

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, Saved]:
        """Make the request, in the state that it belongs to."""
        if name in self._local_ends:
            return HANDED_OVER, saved
        if isinstance(self._places, Turns) and not self._restorable:  # nothing brings a state about: it is in the one that it is in
            return self._answer(self._places.service, name, arguments), saved
        with self._places.use(saved.token) as at:
            self._bring(at, saved)
            if kind == "read" and self._read[name][0].listed.verb in ("GET", "HEAD"):
                return self._answer(at.service, name, arguments), saved
            return self._changing(at, saved, name, arguments)

    def _bring(self, at: At, saved: Saved) -> None:
        """Bring the service to a state unless it is in it: set it back, and make the calls again. Raises SourceFailed."""
        if at.holds(saved.token):
            return
        self._set_back(at)
        if not self._proven and self._started is not None:
            if changed := self._difference(at.service, self._started[1]):
                raise SourceDown(
                    f"the service that was set back is not in the state that was frozen ({changed}). Run the step that froze it again."
                )
            self._proven = True
        for name, arguments in map(json.loads, saved.token):
            try:
                self._answer(at.service, name, arguments)
            except Refused as error:
                raise SourceFailed(
                    f"tool {name!r} worked once and is refused when it is called again from the start ({error}): the service is not "
                    "set back as a whole, or its ids differ each time."
                ) from None
        at.note(saved.token)

    def _set_back(self, at: At) -> None:
        """Bring the start about: by what was declared, or by starting the service anew. Raises SourceFailed."""
        at.note(None)
        if self._ways.reset:
            self._ways.restore(at.service)
        elif not at.fresh:
            at.restart()
        at.fresh = False

    def lost_when_restored(self, saved: Saved) -> str:
        """What differs, as text, when the service was set back and brought to a state again; "" when nothing does, or none is read."""
        if not self._restorable:
            return ""
        with self._plainly() as at:
            at.note(None)
            self._bring(at, saved)
            return self._difference(at.service, saved)

    def _difference(self, service: Service, saved: Saved) -> str:
        """How the state in a service differs from this one."""
        return text_diff(saved.content, self._content(service), DIFF_LINES).replace("\n", "; ")

    def _changing(self, at: At, saved: Saved, name: str, arguments: dict[str, Any]) -> tuple[Any, Saved]:
        """A call that may change the state. One that is refused has changed nothing; what a failed one did is not known."""
        at.note(None)
        try:
            answer = self._answer(at.service, name, arguments)
        except Refused:
            if self._content(at.service).same(saved.content):
                at.note(saved.token)
            raise
        content, kind = self._content(at.service), self._read[name][1]
        if kind == "read" and content.same(saved.content):
            at.note(saved.token)
            return answer, saved
        after = Saved((*saved.token, json.dumps([name, arguments], ensure_ascii=False)), content)
        at.note(after.token)
        return answer, after

    def protected(self, name: str) -> str:
        """Nothing but reads is sent to a service that was not declared disposable."""
        if self._disposable or name in self._local_ends:
            return ""
        return (
            f"it may change {self._places.where}, which was not declared disposable. Point base_url to a copy "
            "and pass disposable=True, or offer operations that read."
        )

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns of leave_out and rounded that nothing has fitted so far (`View.unmet`)."""
        return self._states.view.unmet() if self._ways.parts else {}

    def kept_apart(self) -> str:
        """How the service's state is declared."""
        if not self._restorable:
            return (
                "Nothing sets the service back, so each conversation is in the state that others have left. Name in from_openapi what "
                "does (reset=, fixture= or database=), or a command= that starts a service of the world's own; and state=, which reads "
                "it."
            )
        return (
            "What sets the service back (reset=, fixture=, database=) or reads it (state=) does not reach all that the calls change. "
            "Let it reach that, or name a command= that starts a service of the world's own for each."
        )

    def real(self) -> Real:
        """The service with the real data."""
        if self._real is None:
            raise BadInput(f"{self._where}: real_url is missing; services that are started for plays are not the real one.")
        self.tools()
        self._real.credentials.check()
        return RealService(f"the HTTP service at {self._real.base_url}", self, self._real)

    # --- requests ----------------------------------------------------------------------------------------------------------

    def answer(self, service: Service, name: str, arguments: dict[str, Any]) -> Any:
        """What an operation answers at a service, or what a local end says. Raises Refused, or SourceFailed."""
        return HANDED_OVER if name in self._local_ends else self._answer(service, name, arguments)

    def _answer(self, service: Service, name: str, arguments: dict[str, Any]) -> Any:
        one, kind = self._read[name]
        request = prepared(one, arguments)
        try:
            reply = service.send(request, repeatable=kind == "read")
            return answer_of(reply, f"{request.verb} {service.where}{request.path}", service.credentials.words())
        except SourceFailed as error:
            raise type(error)(f"tool {name!r}: {error}") from None

    # --- the state ---------------------------------------------------------------------------------------------------------

    def _fresh(self) -> Any:
        """The state to begin with, read twice where the service can be set back. Raises BadInput when that is not the same."""
        with self._plainly() as at:
            if not self._restorable:
                return self._state_now(at.service)
            values = []
            for _ in range(2):
                self._set_back(at)
                values.append(self._state_now(at.service))
            at.note(())
        first, second = map(self._compared, values)
        if changed := text_diff(first, second, DIFF_LINES).replace("\n", "; "):
            raise BadInput(
                f"{self._where}: the service is in another state each time it is set back ({changed}). Name what differs in leave_out."
            )
        return values[1]

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[At]:
        """The service before anything is played, when its failure is the user's to mend."""
        try:
            with self._places.use(None) as at:
                yield at
        except SourceFailed as error:
            raise BadInput(f"{self._where}: {error}") from None

    def _state_now(self, service: Service) -> Any:
        return self._ways.read(service) if self._ways.parts else {}

    def _content(self, service: Service) -> Content:
        return self._compared(self._ways.read(service)) if self._ways.parts else NOTHING_READ

    def _compared(self, value: Any) -> Content:
        """What counts of a state."""
        try:
            return self._states.content(value)
        except NotPlain as error:
            raise SourceFailed(f"the state of {self._where}: {error}") from None

    def real_state(self, service: Service) -> Saved:
        """What a service holds now. Raises SourceFailed when that cannot be read."""
        if not self._ways.parts:
            raise SourceFailed(f"{self._where}: state is not given, so the state of the service cannot be read")
        return Saved(None, self._compared(self._ways.read(service)))


class RealService:
    """The service that is called and never set back. It is reached anew for each call, so it is never lost."""

    lost = ""

    def __init__(self, where: str, source: Operations, service: Service) -> None:
        self.where, self._source, self._service = where, source, service

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Make the request."""
        return self._source.answer(self._service, name, arguments)

    def state(self) -> Saved:
        """As it is now."""
        return self._source.real_state(self._service)

    def close(self) -> None:
        """Nothing was started."""
