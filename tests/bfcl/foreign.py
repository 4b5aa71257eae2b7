"""The multi-turn set of the Berkeley Function Calling Leaderboard as worlds: its problems, its classes, and what they are to Cairn.

What its own checker does (bfcl-eval 2026.3.23, eval_checker/multi_turn_eval): a problem names classes and a configuration for each;
every class but MathAPI is loaded with a copy of its configuration, and with long_context in the category of that name. All public
methods of all classes of a problem are one set of tools. Public attributes are compared with ==, private ones are not.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tasks.contract.problem import Action, Problem
from tasks.worlds.adapters import from_object
from tasks.worlds.api.runtime import World

CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
MODULES = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
WRITES: dict[str, tuple[str, ...]] = {
    "GorillaFileSystem": ("mkdir", "touch", "echo", "mv", "rm", "rmdir", "cp"),
    "MathAPI": (),
    "MessageAPI": ("message_login", "send_message", "delete_message", "add_contact"),
    "TwitterAPI": ("authenticate_twitter", "post_tweet", "retweet", "comment", "mention", "follow_user", "unfollow_user"),
    "TicketAPI": ("create_ticket", "close_ticket", "resolve_ticket", "edit_ticket", "ticket_login", "logout"),
    "TradingBot": (
        *("cancel_order", "place_order", "withdraw_funds", "trading_login", "trading_logout", "fund_account"),
        *("remove_stock_from_watchlist", "add_to_watchlist"),
    ),
    "TravelAPI": (
        *("authenticate_travel", "register_credit_card", "book_flight", "cancel_booking", "set_budget_limit"),
        "purchase_insurance",
    ),
    "VehicleControlAPI": (
        *("startEngine", "fillFuelTank", "lockDoors", "adjustClimateControl", "setHeadlights", "activateParkingBrake"),
        *("pressBrakePedal", "releaseBrakePedal", "setCruiseControl", "set_navigation"),
    ),
}
"""The methods that change public attributes, read from the classes; the adapter refuses any other that does."""
TYPES = {"close_ticket.ticket_id": int | str}
"""The annotation says int; one problem's tickets have names, and its ground truth closes one of them."""


@dataclass(frozen=True)
class Entry:
    """One problem of the set. calls: its ground truth as (method, arguments), all turns in order."""

    entry_id: str
    category: str
    classes: tuple[str, ...]
    configuration: dict[str, Any]
    question: str
    calls: tuple[tuple[str, dict[str, Any]], ...]

    def objects(self) -> dict[str, Any]:
        """Fresh instances by class name, loaded as the leaderboard's checker loads them."""
        made = {}
        for name in self.classes:
            made[name] = class_of(name)()
            if name != "MathAPI":
                scenario = copy.deepcopy(self.configuration.get(name, {}))
                made[name]._load_scenario(scenario, long_context=self.category == "long_context")
        return made

    def world(self) -> World:
        """A world over `objects`."""
        writes = tuple(method for name in self.classes for method in WRITES[name])
        types = {path: kind for path, kind in TYPES.items() if path.partition(".")[0] in writes}
        made = from_object(self.objects, name="bfcl", policy="", writes=writes, types=types, leave_out=("_*",), error_key="error")
        return World.build(made, 1, 0)

    def problem(self, world: World) -> Problem:
        """The ground truth as a problem; every call is required, as the leaderboard wants every answer."""
        actions = tuple(Action(name, arguments, world.tools[name].kind) for name, arguments in self.calls)
        family = f"multi_turn_{self.category}"
        return Problem(self.entry_id, "bfcl", "test", family, (self.entry_id,), "", self.question, {}, actions, (), actions)


@cache
def class_of(name: str) -> type[Any]:
    """One of the leaderboard's executable classes."""
    module = importlib.import_module(f"bfcl_eval.eval_checker.multi_turn_eval.func_source_code.{MODULES[name]}")
    return getattr(module, name)  # type: ignore[no-any-return]


def entries() -> Iterator[Entry]:
    """All problems, category after category."""
    data = files("bfcl_eval") / "data"
    for category in CATEGORIES:
        name = f"BFCL_v4_multi_turn_{category}.json"
        truths = {one["id"]: one["ground_truth"] for one in _lines((data / "possible_answer" / name).read_text("utf-8"))}
        for one in _lines((data / name).read_text("utf-8")):
            classes = tuple(one["involved_classes"])
            calls = tuple(parsed(text, classes) for turn in truths[one["id"]] for text in turn)
            question = "\n".join(message["content"] for turn in one["question"] for message in turn)
            yield Entry(one["id"], category, classes, one["initial_config"], question, calls)


def _lines(text: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def parsed(text: str, classes: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """A call such as "mv(source='a', destination='b')" as name and named arguments; it is read, never evaluated."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    name = call.func.id
    method: Callable[..., Any] = next(getattr(class_of(owner), name) for owner in classes if hasattr(class_of(owner), name))
    names = list(inspect.signature(method).parameters)[1:]
    placed = {name: ast.literal_eval(value) for name, value in zip(names, call.args, strict=False)}
    return name, {**placed, **{str(word.arg): ast.literal_eval(word.value) for word in call.keywords}}
