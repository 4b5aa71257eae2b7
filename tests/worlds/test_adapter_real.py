"""The thing itself behind an adapted world: called and never set back, unlike the copies that conversations are played in.

Worked by hand: W1 is cancelled in the real shop; it stays cancelled for the next call, and no fork of the world has heard of it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters import server_file
from tasks.worlds.adapters.foreign_state import Real, SourceFailed
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused
from tests.conftest import ROOT
from tests.warm import WARM
from tests.worlds.kiosk import Kiosk, adapted
from tests.worlds.test_adapter_mcp import SHOP, build


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    WARM.run(["-c", "import mcp.server.mcpserver"], ROOT, os.environ, 60)
    with WARM.python():
        yield


class RealKiosk(Kiosk):
    """As it stands in a shop: it cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._orders[1].status = "sent"


def of(here: World) -> Real:
    real: Real = here.foreign.source.real()
    return real


def test_an_object_is_called_as_it_is() -> None:
    here = World.build(adapted(real=RealKiosk, leave_out=("_looks", "_lock")), 1, 0)
    real, fork = of(here), here.fork()
    assert "RealKiosk" in real.where and json.loads(real.state().text)["_orders"]["(1)"]["status"] == "sent"
    assert real.call("cancel_order", {"order_id": "W2"}) == "cancelled"
    with pytest.raises(Refused, match="there must be a reason"):
        real.call("cancel_order", {"order_id": "W3", "reason": "none"})
    orders = json.loads(real.state().text)["_orders"]
    assert [orders[f"({number})"]["status"] for number in (2, 3)] == ["cancelled", "half cancelled"], "nothing is taken back"
    assert fork.diff() == "" and json.loads(fork.call("get_order", {"order_id": "W2"}).content)["status"] == "pending"


def test_an_object_that_is_no_such_shop() -> None:
    with pytest.raises(BadInput, match=r"real\(\) failed: ZeroDivisionError"):
        of(World.build(adapted(real=lambda: 1 / 0), 1, 0))
    with pytest.raises(BadInput, match="makes an object without a method 'get_order', which is a tool"):
        of(World.build(adapted(real=lambda: object()), 1, 0))
    with pytest.raises(SourceFailed, match="leave_out"):  # predicates cannot look at it, and are told so
        of(World.build(adapted(real=RealKiosk), 1, 0)).state()


def test_a_server_is_called_as_it_is_and_not_started_again(tmp_path: Path) -> None:
    """Its own process: what it held is gone with it, so nothing goes on as if it were there."""
    here = build(tmp_path, **SHOP)
    real = of(here)
    assert real.call("cancel_order", {"order_id": "W1", "reason": "late"}) == "cancelled"
    assert json.loads(real.state().text)["orders"]["W1"]["status"] == "cancelled" and here.fork().diff() == ""
    with pytest.raises(Refused, match="is not pending"):
        real.call("cancel_order", {"order_id": "W1", "reason": "late"})
    assert real.lost == ""
    for _ in range(2):
        with pytest.raises(SourceFailed, match="closed the connection; it died"):
            real.call("die", {})
        assert "closed the connection" in real.lost
    with pytest.raises(SourceFailed, match="it died"):
        real.state()


def test_a_server_of_its_own_for_what_is_real(tmp_path: Path) -> None:
    """Another command than the one that conversations are played in; without a dump its state cannot be read."""
    own = {"command": SHOP["command"], "pass_env": SHOP["pass_env"]}
    real = of(build(tmp_path, **SHOP, real=own))
    assert real.call("cancel_order", {"order_id": "W1", "reason": "late"}) == "cancelled"
    with pytest.raises(SourceFailed, match=r"real\.dump is not given"):
        real.state()
    real.close()
    raw: list[Any] = ["python", str(Path(__file__).parent / "servers/raw.py"), "works"]
    with pytest.raises(BadInput, match="tool 'get_order' is not there"):
        of(build(tmp_path, **SHOP, real={"command": raw}))
    with pytest.raises(BadInput, match=r"lies in \{seat\}, a folder that is gone when it ends. Write the command or url of the real"):
        of(build(tmp_path, **{**SHOP, "env": {"SHOP_LOG": "{seat}/log"}}))
    (tmp_path / "mcp.yaml").write_text(json.dumps({**SHOP, "real": {"command": raw, "url": "http://127.0.0.1:1"}}))
    with pytest.raises(BadInput, match="real: give command"):
        server_file.read(tmp_path / "mcp.yaml")
