"""HTTP services as worlds, with a real FastAPI service on loopback: tools, kinds, calls, state, secrets and everything that goes wrong.

Worked by hand: cancelling W1 in one fork leaves another fork as it was, although both play on one service. Limit: a service that was not
declared disposable gets no request that could change it, from no play, no check and no stage.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import apart_checks
from flows.worlds import check as world_check
from flows.worlds.sample import Call, Sample
from tasks.contract import secret_blocks
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.problem import Action, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.adapters import from_openapi
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.openapi_answers import words_of
from tasks.worlds.adapters.problem_file import row_problem
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import problem_of
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused
from tasks.worlds.freeze import _check_playable
from tests.conftest import ROOT
from tests.worlds import shop_service
from tests.worlds.shop_service import TOKEN, Shop, running
from tests.worlds.test_play_waits import Human

POLICY = "R1. Cancel only what is pending."
OFFERED = ("tag:orders", "search_orders", "build_part")
DISPOSABLE: dict[str, Any] = {
    "disposable": True,
    "reset": "POST /admin/reset",
    "state": "GET /admin/state",
    "leave_out": ("changed",),
    "users": "users",
}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with running(Shop()) as one:
        yield one


@pytest.fixture(autouse=True)
def fresh(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    shop.state, shop.busy = shop_service.start(), 0
    shop.seen.clear()
    shop.headers.clear()


@pytest.fixture
def worlds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SHOP_URL", shop.url)
    from tests.worlds import shop_worlds

    return shop_worlds


def made(shop: Shop, **about: Any) -> Any:
    """A world class over the shop."""
    wanted: dict[str, Any] = {
        "name": "shop",
        "policy": POLICY,
        "operations": OFFERED,
        "auth": {"bearer": "SHOP_TOKEN"},
        "reads": ("search_orders", "build_part"),
        "local_ends": {"call_a_person": "Hand over to a person."},
        **about,
    }
    return from_openapi(wanted.pop("spec", shop.app.openapi()), wanted.pop("base_url", shop.url), **wanted)


def build(shop: Shop, **about: Any) -> World:
    return World.build(made(shop, **about), 1, 0)


def said(result: ToolResult) -> str:
    assert not result.ok, result.content
    return str(json.loads(result.content)["error"])


def told(result: ToolResult) -> Any:
    assert result.ok, result.content
    return json.loads(result.content)


# --- play ---


def as_3_0(node: Any) -> Any:
    """A description of 3.1 as 3.0 writes it."""
    if isinstance(node, list):
        return [as_3_0(one) for one in node]
    if not isinstance(node, dict):
        return "3.0.3" if node == "3.1.0" else node
    found = {key: as_3_0(one) for key, one in node.items()}
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if {"type": "null"} in found.get("anyOf", ()):
        (one,) = (part for part in found.pop("anyOf") if part != {"type": "null"})
        found = {**found, **one, "nullable": True}
    return found


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_by_hand(shop: Shop, version: str) -> None:
    spec = as_3_0(shop.app.openapi()) if version == "3.0" else f"{shop.url}/openapi.json"
    here = build(shop, **DISPOSABLE, spec=spec)
    assert here.call("place_order", {"user_id": "u1", "lines": [{"item": "pen"}], "note": None}).ok
    assert list(here.tools) == [
        "get_order",
        "list_orders",
        "place_order",
        "cancel_order",
        "pay_order",
        "search_orders",
        "build_part",
        "call_a_person",
    ]
    kinds = {name: tool.kind for name, tool in here.tools.items()}
    assert (kinds["get_order"], kinds["search_orders"], kinds["place_order"], kinds["call_a_person"]) == (
        "read",
        "read",
        "write",
        "end",
    )
    one, two = here.fork(), here.fork()
    start = one.state_hash()
    assert told(one.call("get_order", {"order_id": "W1"}))["status"] == "pending" and one.state_hash() == start
    assert told(one.call("cancel_order", {"order_id": "W1", "reason": "late"}))["status"] == "cancelled"
    assert one.diff().splitlines() == [
        *('+ orders.W1.reason: "late"', '- orders.W1.status: "pending"', '+ orders.W1.status: "cancelled"'),
    ]
    assert told(two.call("get_order", {"order_id": "W1"}))["status"] == "pending", "another fork has not cancelled it"
    assert told(two.call("place_order", {"user_id": "u1", "lines": [{"item": "pen"}]}))["id"] == "W5"
    assert told(one.call("get_order", {"order_id": "W1"}))["status"] == "cancelled"
    assert said(one.call("get_order", {"order_id": "W5"})) == "404 Not Found: no order W5"
    snapshot, before = two.snapshot(), two.state_hash()
    two.call("cancel_order", {"order_id": "W5", "reason": "late"})
    two.restore(snapshot)
    assert two.state_hash() == before and told(two.call("get_order", {"order_id": "W5"}))["status"] == "pending"
    assert one.call("call_a_person", {"summary": "help"}).content == "a person takes over"
    one.reset()
    assert one.state_hash() == start and sorted(here.splits) == ["u0", "u1", "u2"]


def test_one_conversation_alone_is_set_back_once(shop: Shop) -> None:
    here = build(shop, **DISPOSABLE).fork()
    shop.seen.clear()
    for number in range(4):
        assert here.call("cancel_order", {"order_id": f"W{number}", "reason": "late"}).ok
    assert shop.seen["POST", "/admin/reset"] == 0, "the service was left at the start"
    here.reset()
    assert here.call("get_order", {"order_id": "W1"}).ok and shop.seen["POST", "/admin/reset"] == 1


@pytest.mark.parametrize("conversations", ["one_at_a_time", "side_by_side"])
def test_conversations_take_turns_or_come_one_after_the_other(shop: Shop, worlds: Any, conversations: str) -> None:
    """The same outcomes; one at a time the service is set back once for each conversation, and once for each ground truth."""
    here = build(shop, **DISPOSABLE, conversations=conversations, problems_file=Path(worlds.__file__).with_name("shop.jsonl"))
    rows = here.shared.base.tables["problems"]
    problems = [replace(row_problem(here, {**row, "outputs": []}), problem_id=key) for key, row in rows.items()]
    shop.seen.clear()
    jobs = [(problem, trial) for trial in range(4) for problem in problems]
    assert [one.outcome.reward for one in play(here, jobs, Oracle([one for one, _ in jobs]), Human(), seed=0) if one.outcome] == [
        1
    ] * len(jobs)
    assert conversations == "side_by_side" or shop.seen["POST", "/admin/reset"] <= len(jobs) + len(problems)


def test_a_call_that_is_refused_leaves_no_trace(shop: Shop) -> None:
    here = build(shop, **DISPOSABLE).fork()
    assert here.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok
    before = here.snapshot()
    assert said(here.call("cancel_order", {"order_id": "W1", "reason": "late"})) == "409 Conflict: W1 is cancelled"
    assert here.snapshot() == before and shop.seen["POST", "/admin/reset"] == 2, "nothing but the two of the building"


def test_a_replay_that_the_service_refuses(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset that does not bring all back is found when the calls are made again, and a start of other rows when it is set back."""
    here = build(shop, **DISPOSABLE)
    one, two = here.fork(), here.fork()
    assert one.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok and two.call("get_order", {"order_id": "W1"}).ok
    assert here.foreign.source.lost_when_restored(one.state.saved) == ""
    other = shop_service.start()
    other["orders"].pop("W1")
    monkeypatch.setattr(shop_service, "start", lambda: other)
    assert two.call("list_orders", {}).ok
    assert "worked once and is refused when it is called again from the start (404 Not Found" in said(one.call("list_orders", {}))
    again = build(shop, **DISPOSABLE)
    monkeypatch.undo()
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    shop.state = {}
    again.foreign.source._places._first = True  # as in another process
    with pytest.raises(StageFailed, match=r"world shop: the service that was set back is not .* that was frozen \(\+ orders\.W1: "):
        again.fork().call("get_order", {"order_id": "W1"})


def test_two_worlds_over_one_service(shop: Shop, tmp_path: Path) -> None:
    """Each has a start of its own: what one has set back is not what the other one wants."""
    (tmp_path / "state.json").write_text(json.dumps({**shop_service.start(), "orders": {}}))
    full = build(shop, **DISPOSABLE)
    empty = build(shop, **{**DISPOSABLE, "reset": "", "fixture": {"PUT /admin/state": tmp_path / "state.json"}})
    for _ in range(2):
        assert len(told(full.fork().call("list_orders", {}))) == 5 and told(empty.fork().call("list_orders", {})) == []


def test_rows_that_a_service_lists_in_any_order(shop: Shop) -> None:
    here = build(shop, **{**DISPOSABLE, "state": {"orders": "GET /orders", "people": "GET /admin/state"}, "users": "people.users"})
    fork = here.fork()
    assert fork.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok and "+ orders.W1.status: " in fork.diff()
    order = shop.state["orders"].pop("W0")
    shop.state["orders"]["W0"] = order  # now the last one
    before = fork.state_hash()
    assert fork.call("search_orders", {"user_id": "u1"}).ok and fork.state_hash() == before


def test_numbers_with_noise_are_declared(shop: Shop) -> None:
    """As of plain objects: to the nearest multiple of a step."""
    noisy = {**DISPOSABLE, "leave_out": ()}  # so that the clock in `changed` counts
    for rounded, same in (({}, False), ({"changed": 1e12}, True)):
        one, two = build(shop, **noisy, rounded=rounded).fork(), build(shop, **noisy, rounded=rounded).fork()
        order = {"user_id": "u1", "lines": [{"item": "pen"}]}
        hashes = [fork.state_hash() for fork in (one, two) if fork.call("place_order", order).ok]
        assert len(hashes) == 2 and (hashes[0] == hashes[1]) is same
    with pytest.raises(BadInput, match=r"rounded\['\*.total'\] = -1 must be a number above 0"):
        build(shop, **DISPOSABLE, rounded={"*.total": -1})


def test_the_state_of_a_fixture(shop: Shop, tmp_path: Path) -> None:
    state = {**shop_service.start(), "orders": {}, "users": {f"x{number}": {} for number in range(3)}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    here = build(shop, **{**DISPOSABLE, "reset": "", "fixture": {"PUT /admin/state": tmp_path / "state.json"}})
    assert sorted(here.splits) == ["x0", "x1", "x2"]
    assert told(here.fork().call("place_order", {"user_id": "x1", "lines": [{"item": "pen"}]}))["id"] == "W0"
    assert told(here.fork().call("list_orders", {})) == []


def test_where_nothing_is_set_back_required_calls_are_graded(shop: Shop) -> None:
    """A state that is read and cannot be brought about says nothing of one conversation: doing nothing would leave it, too."""
    for state in ((), "GET /admin/state"):
        here = build(shop, disposable=True, state=state)
        assert not here.compared and not here.copies
        draft = {"instruction": "Cancel W3.", "actions": [{"name": "cancel_order", "arguments": {"order_id": "W3", "reason": "late"}}]}
        problem = problem_of(here, draft, {"user_id": "u0", "split": "test", "persona": "plain"})
        assert [action.name for action in problem.required] == ["cancel_order"]
        assert here.grade(Trajectory(problem=problem, trial=0, seed=0), here.fork()).required == 0
    assert here.fork().call("cancel_order", {"order_id": "W3", "reason": "late"}).ok
    assert not here.fork().call("cancel_order", {"order_id": "W3", "reason": "late"}).ok, "all are in the one state of the service"


# --- schemas and requests ---


def test_a_check_of_a_service_that_nothing_sets_back_names_what_would(shop: Shop) -> None:
    here = build(shop, disposable=True)
    calls = [Call(Action("cancel_order", {"order_id": "W3", "reason": "late"}, "write"), (), True)]
    (found,) = apart_checks.conversations(Sample(here, frozenset(), {}, calls=calls)).findings
    assert "two conversations are not apart" in found.what
    for word in ("from_openapi", "reset=", "fixture=", "database=", "command=", "state="):
        assert word in found.remedy
    assert "snapshot" not in found.remedy


def test_schemas_for_models(shop: Shop) -> None:
    here = build(shop)
    place = here.tools["place_order"].parameters
    assert place["required"] == ["user_id", "lines"] and place["properties"]["lines"]["items"] == {"$ref": "#/$defs/Line"}
    assert (
        set(place["$defs"]) == {"Line"}
        and here.tools["list_orders"].parameters["properties"]["status"]["description"] == "wanted statuses"
    )
    assert "authorization" not in json.dumps(here.schemas()).lower()
    assert "argument 'lines' at [0]['count'] is wrong: 0 is less than the minimum of 1" in said(
        here.call("place_order", {"user_id": "u1", "lines": [{"item": "pen", "count": 0}]})
    )
    deep = {"name": "a", "parts": [{"name": "b", "parts": [{"name": "c"}]}]}
    assert build(shop, **DISPOSABLE).fork().call("build_part", deep) == ToolResult(True, "a"), "a schema that holds itself"


def test_a_discriminator_chooses(shop: Shop) -> None:
    here = build(shop, **DISPOSABLE).fork()
    assert here.call("pay_order", {"order_id": "W1", "how": {"kind": "card", "number": "4"}}) == ToolResult(
        True, "done (204 No Content, no content)"
    )
    assert not here.call("pay_order", {"order_id": "W1", "how": {"kind": "shells"}}).ok and '"card"' in here.diff()


def test_parameters_arrive(shop: Shop) -> None:
    here = build(shop)
    shop.headers.clear()
    assert told(here.call("list_orders", {"status": ["cancelled", "a b&c"], "page": 2, "x-lang": "de"})) == []
    (seen,) = shop.headers
    assert (seen["query"], seen["x-lang"], seen["authorization"]) == (
        "status=cancelled&status=a%20b%26c&page=2",
        "de",
        f"Bearer {TOKEN}",
    )


# --- what must not happen ---


def test_nothing_is_written_undeclared(shop: Shop, worlds: Any) -> None:
    """A service that counts says how many requests could have changed it: none, also by the processes that the check starts."""
    here = World.build(worlds.Undeclared, 1, 0)
    late = {"order_id": "W1", "reason": "late"}
    assert not here.replay([Action("cancel_order", late, "write")]).ok
    assert "which was not declared disposable. Point base_url to a copy" in said(here.fork().call("cancel_order", late))
    with pytest.raises(BadInput, match="tool 'place_order' can be called in no run"):
        _check_playable(here)
    report = world_check.check(worlds.Undeclared, count=3)
    assert all(name in str(report["calls"].findings) for name in ("place_order", "cancel_order", "pay_order"))
    assert "every call of get_order was refused" not in report.text(), "ids come from the rows of the state"
    assert {path for verb, path in shop.seen if verb != "GET"} == {"/search"} and shop.state == shop_service.start()
    with pytest.raises(BadInput, match="say that it may be changed: disposable=True"):
        made(shop, reset="POST /admin/reset")


@pytest.mark.long
def test_a_world_check_of_a_service_that_may_be_changed(shop: Shop, worlds: Any) -> None:
    report = world_check.check(worlds.Declared, count=3)
    wrong = {one.name for one in report.checks if not one.ok}
    assert wrong <= {"API graph", "coverage"} and report["oracle"].ok, report.text()  # of three problems
    assert shop.writes


def test_dangerous_operations(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert "delete_order" not in build(shop).tools and "not offered, dangerous and not named in allow: delete_order" in caplog.text
    assert "delete_order" in build(shop, allow=("delete_order",)).tools
    with pytest.raises(BadInput, match=r"operations names 'delete_order', which is dangerous \(DELETE\).*allow=\('delete_order',\)"):
        build(shop, operations=("delete_order",), reads=())
    assert "pay_order" not in build(shop, dangerous=("pay_*",)).tools
    spec = json.loads(json.dumps(shop.app.openapi()))
    spec["paths"]["/orders"]["post"]["x-dangerous"] = True
    assert "place_order" not in build(shop, spec=spec).tools


def test_secrets_stay_here(shop: Shop, worlds: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = build(shop, **DISPOSABLE, operations=(*OFFERED, "*odd*"))
    odd = {
        one.removeprefix("GET "): name for name in here.tools for one in [here.foreign.place(name).partition(": ")[2]] if "/odd/" in one
    }
    fork = here.fork()
    failed = said(fork.call(odd["/odd/fails"], {}))
    assert "500 Internal Server Error: Out of order: token <secret> broke it" in failed and TOKEN not in failed
    assert "leads to http://localhost:9, and what it is sent, secrets too, stays here" in said(fork.call(odd["/odd/elsewhere"], {}))
    assert told(fork.call(odd["/odd/moved"], {}))["id"] == "W1", "on the same host"
    freeze_world(World.build(worlds.Declared, 1, 0), tmp_path / "shop")
    assert all(TOKEN not in path.read_text() for path in (tmp_path / "shop").iterdir())
    monkeypatch.setenv("SHOP_TOKEN", "wrong-token")
    refused = said(build(shop).call("get_order", {"order_id": "W1"}))
    assert (
        "401 Unauthorized" in refused
        and "credentials were not taken: bearer from SHOP_TOKEN" in refused
        and "wrong-token" not in refused
    )
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(BadInput, match="the environment variable SHOP_TOKEN is not set"):
        build(shop)


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ({"basic": "LOGIN"}, ("authorization", "Basic YWRhOnB3")),
        ({"header X-Key": "LOGIN"}, ("x-key", "ada:pw")),
        ({"query key": "LOGIN"}, ("query", "key=ada%3Apw")),
        ({"cookie session": "LOGIN"}, ("cookie", "session=ada:pw")),
    ],
)
def test_where_secrets_go(shop: Shop, auth: dict[str, str], sent: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", "ada:pw")
    here = build(shop, auth=auth)
    shop.headers.clear()
    here.call("get_order", {"order_id": "W1"})
    assert shop.headers[0][sent[0]] == sent[1]


# --- answers ---


def test_answers(shop: Shop) -> None:
    here = build(shop, operations=("*odd*",), reads=("*odd*",), call_seconds=0.5)
    odd = {here.foreign.place(name).partition(": ")[2]: name for name in here.tools}
    fork = here.fork()
    assert fork.call(odd["GET /odd/picture"], {}).content == "[file: image/png, 6 bytes]"
    assert fork.call(odd["GET /odd/long"], {}).content.endswith("characters are left out; ask for less]")
    assert "did not answer within 0.5 s; it hangs, or call_seconds is too short" in said(fork.call(odd["GET /odd/slow"], {}))
    assert fork.call(odd["POST /odd/busy"], {}).content == "here" and shop.busy == 2, "told when to come again"


def test_only_what_changes_nothing_is_sent_again(shop: Shop) -> None:
    """A read three times, and a write once, unless the service says when to come again."""
    here = build(shop, operations=("*odd*",), disposable=True)
    odd = {here.foreign.place(name).partition(": ")[2]: name for name in here.tools}
    assert here.fork().call(odd["GET /odd/flaky"], {}).content == "there" and shop.busy == 3
    shop.busy = 0
    assert "503 Service Unavailable: down. Look into the service's log" in said(here.fork().call(odd["POST /odd/broken"], {}))
    assert shop.busy == 1


def test_a_secret_of_a_prefect_block(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(secret_blocks, "load", lambda name, where: asked.append((name, where)) or TOKEN)
    here = build(shop, auth={"bearer": "prefect:shop-token"})
    assert not asked, "not before it is needed: Prefect's server may start with the run"
    assert here.fork().call("get_order", {"order_id": "W1"}).ok and here.fork().call("get_order", {"order_id": "W2"}).ok
    assert asked == [("shop-token", "world shop: auth['bearer']")]


def test_a_block_that_nobody_opens() -> None:
    """The engine hands in who opens blocks; a program without it is told, and has loaded no Prefect."""
    code = """
import sys
from tasks.contract.params import BadInput
from tasks.worlds.adapters.openapi_http import Credentials
from tasks.worlds.adapters.openapi_requests import Prepared
try:
    Credentials({"bearer": "prefect:token"}, "world shop").added(Prepared("get", "/"))
except BadInput as error:
    print(error, "prefect" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    words = "world shop: auth['bearer']: nobody opens blocks here, so 'token' cannot be read. Name an environment variable instead."
    assert found.stdout == f"{words} False\n", found.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"detail": [{"loc": ["body", "lines", 0, "count"], "msg": "Input should be a valid integer."}]},
            "lines.0.count: Input should be a valid integer",
        ),
        ({"detail": "No such order"}, "No such order"),
        ({"type": "about:blank", "title": "Conflict", "detail": "W1 is sent", "status": 409}, "Conflict: W1 is sent"),
        ({"title": "Invalid", "errors": [{"pointer": "#/age", "message": "must be positive"}]}, "Invalid: #/age: must be positive"),
        ({"error": {"code": 7, "message": "out of stock"}}, "out of stock"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired"),
        ({"code": 7}, '{"code": 7}'),
        (["a", {"message": "b"}], "a; b"),
    ],
)
def test_words_of_an_error(body: Any, words: str) -> None:
    assert words_of(body) == words


def test_a_service_that_is_down(shop: Shop) -> None:
    nowhere = build(shop, base_url="http://127.0.0.1:9")
    with pytest.raises(StageFailed) as down:
        nowhere.call("get_order", {"order_id": "W1"})
    assert str(down.value) == (
        "world shop: tool 'get_order': GET http://127.0.0.1:9/orders/W1: the connection was refused; nothing listens there. Start the "
        "service, or mend base_url. Then run again: what is done is kept."
    )
    with pytest.raises(BadInput, match=r"world shop: POST http://127\.0\.0\.1:9/admin/reset: the connection was refused"):
        build(shop, base_url="http://127.0.0.1:9", **DISPOSABLE)


# --- frozen ---


def test_a_description_that_changed_is_refused_by_name(
    shop: Shop, worlds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_spec(spec: Any) -> World:
        cls = made(shop, **DISPOSABLE, operations=("tag:orders", "search_orders"), reads=("search_orders",), spec=spec, local_ends={})
        monkeypatch.setattr(worlds.Declared, "FOREIGN", cls.FOREIGN)
        return load(tmp_path / "shop")

    freeze_world(World.build(worlds.Declared, 1, 0), tmp_path / "shop")
    assert told(load(tmp_path / "shop").call("get_order", {"order_id": "W1"}))["id"] == "W1"
    spec = json.loads(json.dumps(shop.app.openapi()))
    spec["info"]["description"] = "Other words that no tool has."
    assert with_spec(spec).name == "declared"
    spec["paths"]["/orders/{order_id}/cancel"]["post"]["operationId"] = "cancel"
    spec["paths"]["/orders"]["get"]["parameters"].pop()
    with pytest.raises(BadInput, match=r"changed since it was frozen: list_orders, cancel_order, cancel \("):
        with_spec(spec)


# --- the real one ---


def test_the_real_service_is_called_and_never_set_back(shop: Shop) -> None:
    real = build(shop).foreign.source.real()
    assert real.where == f"the HTTP service at {shop.url}"
    assert real.call("cancel_order", {"order_id": "W1", "reason": "late"})["status"] == "cancelled"
    with pytest.raises(Refused, match="409 Conflict: W1 is cancelled"):
        real.call("cancel_order", {"order_id": "W1", "reason": "late"})
    with pytest.raises(SourceFailed, match="state is not given"):
        real.state()
    held = build(shop, state="GET /admin/state").foreign.source.real().state()
    assert json.loads(held.text)["orders"]["W1"]["status"] == "cancelled"
