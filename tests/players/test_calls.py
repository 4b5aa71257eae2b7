"""What was paid is kept: the cache, concurrent processes, kills, forks, the ledger and the budget; and keys, which are kept nowhere."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.stub import Stub
from tasks.contract.client import BudgetSpent, CallFailed, Request
from tasks.contract.params import BadInput
from tasks.players.openai_compatible import Dialect, EndpointClient, Prices, Setting, stats
from tasks.players.openai_compatible.cache import Cache, Paid
from tests.conftest import ROOT
from tests.players.conftest import QUICK, Make, questions
from tests.warm import WARM

WORK = """
import json, sys
from pathlib import Path
from tasks.players.openai_compatible import Dialect, EndpointClient, Setting
from tests.players.conftest import QUICK, questions
url, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
role = EndpointClient("judge", url, Dialect("some-model"), pace=QUICK, setting=Setting(folder, "run", "run"))
answers = []
for start in range(0, count, 20):
    answers += role.complete(questions(20, start=start))
    print(start, flush=True)
print(json.dumps(answers))
"""


def start(stub: Stub, folder: Path, count: int) -> subprocess.Popen[str]:
    """A process that can be killed."""
    return subprocess.Popen([sys.executable, "-c", WORK, stub.url, str(folder), str(count)], stdout=subprocess.PIPE, text=True)


def answers(stub: Stub, folder: Path, count: int) -> list[dict[str, Any]]:
    """What another process is answered."""
    done = WARM.run(["-c", WORK, stub.url, str(folder), str(count)], ROOT, os.environ, 60)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_second_run_pays_nothing(make: Make, stub: Stub, tmp_path: Path) -> None:
    """Another process with the same folder: the same answers, no call."""
    asked = questions(40)
    mine = make().complete(asked)
    assert answers(stub, tmp_path / "state", 40)[:20] == mine[:20]
    assert stub.counts()["paid"] == 40 + 20, "questions(20, start=20) have other seeds than the second half of questions(40)"


def test_what_can_change_an_answer_is_in_the_key(make: Make, stub: Stub) -> None:
    base: dict[str, Any] = {"messages": [{"role": "user", "content": "Q"}], "seed": 1, "temperature": 0.5, "max_tokens": 10}
    others: list[dict[str, Any]] = [{"seed": 2}, {"seed": 1 + 2**31}, {"temperature": 0.6}, {"max_tokens": 11}, {"schema": {"type": "object"}},
                                    {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"labels": {"role": "x"}}]  # fmt: skip
    make().complete([Request(**base)])
    make().complete([Request(**(base | other)) for other in others])
    assert stub.counts()["paid"] == 1 + len(others) - 1, "all but labels"
    make(dialect=Dialect("another")).complete([Request(**base)])
    assert stub.counts()["paid"] == len(others) + 1
    assert make("human", secret=lambda: "other-key").complete([Request(**base)]) == make().complete([Request(**base)])
    assert stub.counts()["paid"] == len(others) + 1


def test_two_processes_on_one_cache(make: Make, stub: Stub, tmp_path: Path) -> None:
    """Both end with the same answers, whoever paid; afterwards nobody pays."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: answers(stub, tmp_path / "state", 300), range(2))
    assert first == second
    assert 300 <= stub.counts()["paid"] <= 600
    before = stub.counts()["paid"]
    assert answers(stub, tmp_path / "state", 300) == first and stub.counts()["paid"] == before
    assert Cache(tmp_path / "state").kept() == [
        {"model": "some-model", "role": "judge", "answers": 300}
        | {k: v for k, v in Cache(tmp_path / "state").kept()[0].items() if "tok" in k}
    ]


def test_many_processes_may_be_the_first(tmp_path: Path) -> None:
    """Twelve at once open a cache that is not there yet, each to keep an answer."""
    code = (
        "import sys; from pathlib import Path; from tasks.players.openai_compatible.cache import Cache, Paid\n"
        "Cache(Path(sys.argv[1])).put(sys.argv[2].encode(), {}, Paid('r', 'j', 'm', 1, 1, 0.0))"
    )
    with ThreadPoolExecutor(12) as pool:
        done = pool.map(lambda number: WARM.run(["-c", code, str(tmp_path), str(number)], ROOT, os.environ, 60), range(12))
    assert [one.returncode for one in done] == [0] * 12
    assert Cache(tmp_path).kept()[0]["answers"] == 12


def test_a_kill_costs_at_most_the_calls_in_flight(stub: Stub, tmp_path: Path) -> None:
    """Five kills at different moments, then to the end: each kill pays at most the 16 calls in flight twice."""
    stub.turn(latency=0.01)
    for kills in range(5):
        worker = start(stub, tmp_path, 600)
        assert worker.stdout is not None
        for _ in range(2 + kills):
            worker.stdout.readline()
        time.sleep(0.004 * kills)
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    assert len(answers(stub, tmp_path, 600)) == 600 and stub.counts()["twice"] <= 5 * QUICK.max_in_flight
    assert stub.counts()["paid"] - stub.counts()["twice"] == 600


def test_a_fork_has_a_loop_of_its_own(make: Make, stub: Stub) -> None:
    """The parent has threads and an open database; the child of a fork asks, is answered, and leaves both alone."""
    role = make()
    role.complete(questions(5))
    child = os.fork()
    if child == 0:
        try:
            good = role.complete(questions(10)) and stats()["judge"]["calls"] == 5
            os._exit(0 if good else 3)
        except BaseException:
            os._exit(4)
    for _ in range(400):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the fork hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(role.complete(questions(15))) == 15 and stub.counts()["paid"] == 15


def test_equal_requests_in_flight_are_asked_once(make: Make, stub: Stub) -> None:
    stub.turn(latency=0.05)
    answers = make().complete(questions(1) * 30)
    assert stub.counts()["paid"] == 1 and answers == answers[:1] * 30
    assert (stats()["judge"]["calls"], stats()["judge"]["cached"]) == (1, 29)


def test_tokens_and_money_are_counted(make: Make, stub: Stub, tmp_path: Path) -> None:
    """By hand: money = (in x 2 + out x 10) / 1,000,000; a cached answer costs nothing; the ledger outlives the process."""
    role = make(prices=Prices(2.0, 10.0))
    role.complete(questions(10))
    first = stats()["judge"]
    assert first["money"] == pytest.approx((first["tokens_in"] * 2 + first["tokens_out"] * 10) / 1e6) and first["tokens_in"] > 300
    role.complete(questions(10))
    again = stats()["judge"]
    assert (again["money"], again["calls"], again["cached"]) == (first["money"], 10, 10)
    cache = Cache(tmp_path / "state")
    assert cache.spent("run") == (first["tokens_in"] + first["tokens_out"], pytest.approx(first["money"]))
    assert cache.spent("another") == (0, 0.0)


def test_a_file_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path) -> None:
    """The tables as the first version made them, with an answer that somebody paid for."""
    with sqlite3.connect(tmp_path / "calls.sqlite") as db:
        db.execute(
            "CREATE TABLE answers (key BLOB PRIMARY KEY, model TEXT NOT NULL, role TEXT NOT NULL, tokens_in INT NOT NULL, "
            "tokens_out INT NOT NULL, answer TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE paid (run TEXT, role TEXT, model TEXT, calls INT NOT NULL, tokens_in INT NOT NULL, tokens_out INT NOT NULL, "
            "money REAL NOT NULL, PRIMARY KEY (run, role, model))"
        )
        db.execute("INSERT INTO answers VALUES (?, 'm', 'judge', 3, 4, ?)", (b"one", '{"content": "yes"}'))
        db.execute("INSERT INTO paid VALUES ('first', 'judge', 'm', 1, 3, 4, 0.5)")
    db.close()
    cache = Cache(tmp_path)
    assert cache.get(b"one") == {"content": "yes"} and cache.spent("first") == (7, 0.5)
    cache.put(b"two", {"content": "no"}, Paid("first", "judge", "m", 5, 6, 0.25))
    assert cache.spent("first") == (18, 0.75) and cache.money() == {"m": 0.75}


def test_without_usage_tokens_are_estimated_and_said_to_be(make: Make, stub: Stub) -> None:
    stub.turn(usage=False)
    make().complete(questions(4))
    assert stats()["judge"]["uncounted"] == 4 and stats()["judge"]["tokens_in"] > 0


@pytest.mark.parametrize("limits", [{"max_tokens": 3000}, {"max_cost": 0.003}])
def test_a_budget_is_never_passed_and_what_was_paid_is_kept(make: Make, stub: Stub, tmp_path: Path, limits: dict[str, float]) -> None:
    """Some calls are made, none that could pass the limit; a larger budget pays for the rest alone and counts what was spent before."""
    role = make(limits=limits, prices=Prices(1.0, 1.0))
    small = {"max_tokens": 40}
    with pytest.raises(BudgetSpent, match=r"the next model call was not made: budget\.max_(cost|tokens) = .*run again"):
        role.complete(questions(200, **small))
    tokens, money = Cache(tmp_path / "state").spent("run")
    paid = stub.counts()["paid"]
    assert 5 < paid < 200 and tokens <= 3000 and money <= 0.003
    with pytest.raises(BudgetSpent):  # as another attempt of the same run
        make(limits=limits, prices=Prices(1.0, 1.0)).complete(questions(200, **small))
    assert stub.counts()["paid"] - paid <= 1
    before = stub.counts()["paid"]
    larger = {name: limit * 1.5 for name, limit in limits.items()}
    with pytest.raises(BudgetSpent):
        make(limits=larger, prices=Prices(1.0, 1.0)).complete(questions(200, **small))
    tokens, money = Cache(tmp_path / "state").spent("run")
    assert before < stub.counts()["paid"] < 200 and tokens <= 4500 and money <= 0.0045
    assert len(make(prices=Prices(1.0, 1.0)).complete(questions(200, **small))) == 200
    assert stub.counts()["paid"] == 200 and before < 200


def test_an_answer_of_another_process_is_the_one_that_counts(tmp_path: Path) -> None:
    one, other = Cache(tmp_path), Cache(tmp_path)
    paid = Paid("run", "judge", "m", 10, 2, 0.5)
    assert one.put(b"k", {"a": 1}, paid) == {"a": 1} == other.put(b"k", {"a": 2}, paid)
    assert one.spent("run") == (24, 1.0), "both were paid"
    assert other.forget("m") == 1 and one.get(b"k") is None and one.spent("run") == (24, 1.0)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(BadInput, match=r"calls\.sqlite: the cache of model calls cannot be opened .*Move the file away"):
        Cache(tmp_path)


def test_a_key_is_sent_and_stands_nowhere(
    make: Make, stub: Stub, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in the cache, the answers, the figures, the logs of any library, nor in the error of a server that repeats it."""
    key = "sk-very-secret-0123456789"
    stub.turn(key=key)
    caplog.set_level(logging.DEBUG)
    answers = make(secret=lambda: key).complete(questions(3))
    with pytest.raises(CallFailed, match=r"the server refuses the key: status 401 \(Incorrect API key provided: <the key>\)") as failed:
        make(secret=lambda: key + "x", name="wrong").complete(questions(50, start=100))
    assert stub.counts()["served"]["401"] <= 16, "whoever waited was told, and did not ask"
    assert key not in json.dumps(answers) + json.dumps(stats()) + str(failed.value) + repr(failed.value.__cause__) + caplog.text
    assert key not in "".join(capfd.readouterr())
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file
    dump = "\n".join(sqlite3.connect(tmp_path / "state" / "calls.sqlite").iterdump())
    assert "some-model" in dump and key not in dump


def test_a_client_without_a_folder_keeps_nothing(stub: Stub) -> None:
    role = EndpointClient("judge", stub.url, Dialect("m"), pace=QUICK, setting=Setting())
    assert (role.name, role.revision) == ("m", "unpinned")
    assert role.complete([]) == [] and len(role.complete(questions(2))) == 2


def test_another_model_behind_a_name_is_asked_again(make: Make, stub: Stub) -> None:
    """What its server said of a model is part of who answered; port and path are not."""
    make(reported='{"answered":"small-2026"}').complete(questions(3))
    make(reported='{"answered":"small-2026"}').complete(questions(3))
    assert stub.counts()["paid"] == 3
    make(reported='{"answered":"small-2027"}').complete(questions(3))
    assert stub.counts()["paid"] == 6
