"""`cairn serve` with two agents: adapters of one base share its weights; a shadow answers for the log alone and holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from flows import interrupt
from flows.cli import main
from flows.serving import run, source, start
from flows.serving.shadow import Shadow
from flows.serving.source import Named
from infra.bench import free_port
from tasks.checkpoints import adapters
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.players.local import own
from tasks.players.local.generation import Generated, Sampling
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.player import listening
from tasks.serving.endpoint.served import Served
from tests.flows.test_serve_chat import lines
from tests.flows.test_serve_source import adapted
from tests.rollout import tiny

USER: list[Any] = [{"role": "user", "content": "Hello, please cancel order #W12345, my name is Ada Lovelace."}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with a base and two adapters of it."""
    place = tmp_path_factory.mktemp("adapted")
    one, two = adapted(Store(place / "state"), place / "made", 1, 2).values()
    return SimpleNamespace(one=one / "model", two=two / "model", state=place / "state")


@pytest.fixture
def two(folders: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The two as champion and challenger, and where what they say is kept."""
    monkeypatch.setattr(source, "STATE", folders.state)
    found = [Named(source.named(str(folder)).folder, name, "", source.named(str(folder)).base) for name, folder in _named(folders)]
    return SimpleNamespace(found=found, how=start.How(most=300, kept=Kept(tmp_path / "kept")), kept=tmp_path / "kept")


def _named(folders: SimpleNamespace) -> list[tuple[str, Path]]:
    return [("champion", folders.one), ("challenger", folders.two)]


@contextmanager
def client(engines: Sequence[Served], beside: Shadow | None = None) -> Iterator[openai.OpenAI]:
    try:
        with listening(make(*engines, beside=beside)) as url:
            yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    finally:
        if beside:
            beside.end()
        for one in engines:
            one.thread.end()


def ask(client: openai.OpenAI, model: str, **more: Any) -> str:
    how: Any = {"max_tokens": 12, "temperature": 1, "seed": 7, **more}
    return client.chat.completions.create(model=model, messages=USER, **how).choices[0].message.content or ""


def test_two_adapters_of_one_base_share_its_weights_and_answer_by_their_names(two: SimpleNamespace) -> None:
    engines = start.open_agents(two.found, {}, two.how)
    assert [one.names for one in engines] == [["base", "champion", "challenger"]]
    with client(engines) as asked:
        said = [ask(asked, name) for name in ("champion", "challenger")]
        assert said[0] != said[1] and [ask(asked, name) for name in ("champion", "challenger")] == said
        with pytest.raises(openai.BadRequestError, match="it is what champion and challenger stand on"):
            ask(asked, "base")
        with pytest.raises(openai.NotFoundError, match="There are: base, champion, challenger") as caught:
            ask(asked, "king")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert [one["model"] for one in lines(two.kept)] == ["champion", "challenger"] * 2
    (alone,) = start.open_agents(two.found[1:], {}, two.how)
    with client([alone]) as asked:
        assert ask(asked, "challenger") == said[1], "beside another one it says the same"


def test_an_adapter_is_served_as_the_model_that_wears_it_plays(two: SimpleNamespace, folders: SimpleNamespace) -> None:
    """Which is how `evaluate` plays it: token for token, at a temperature."""
    store = Store(folders.state)
    (served,) = start.open_agents(two.found, {}, two.how)
    for number, one in enumerate(two.found):
        identity = adapters.base_of(one.folder).artifact  # type: ignore[union-attr]
        model, _ = adapters.load(one.folder, {identity: store.view(identity)})
        played = own.opened(model, rows=4, most=300)
        for seed in range(4):
            ids, how = [5 + seed, 9, 20 + number], Sampling(seed, 0.8, 24, ())
            played.submit(str(seed), ids, replace(how, adapter="default"))
            (wanted,) = played.poll()
            made = served.thread.ask(ids, replace(how, adapter=served.adapters[one.name])).result()
            assert list(made.ids) == list(wanted.ids)
    served.thread.end()


def test_whole_checkpoints_take_an_engine_each_if_memory_allows(
    two: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a base beside an adapter of it takes one."""
    other = Named(tiny.saved(tmp_path / "other", seed=5), "other")
    engines = start.open_agents([two.found[0], other], {}, two.how)
    assert [one.names for one in engines] == [["base of champion", "champion"], ["other"]]
    with client(engines) as asked:
        assert ask(asked, "other") != ask(asked, "champion")
    base = Named(two.found[0].base, "started")
    (served,) = start.open_agents([two.found[0], base], {}, two.how)
    assert served.names == ["started", "champion"] and served.chat_of("started") and served.chat_of("champion")
    served.thread.end()
    monkeypatch.setattr(start, "_free", lambda device: 1000)
    with pytest.raises(BadInput, match=r"different weights.*champion 0\.\d+ GiB, other 0\.\d+ GiB, .* in all, and 0\.00 GiB of cpu"):
        start.open_agents([two.found[0], other], {}, two.how)
    start.check_memory({Path("a"): [base]}, two.how)


def test_a_shadow_answers_for_the_log_alone(two: SimpleNamespace) -> None:
    """Token by token as it would have been served itself, marked as what it is; requests cannot name it."""
    engines, shadow = start.with_shadow(start.open_agents(two.found, {}, two.how), two.found)
    with client(engines, shadow) as asked:
        first = ask(asked, "champion")
        streamed = asked.chat.completions.create(model="champion", messages=USER, stream=True, seed=8, max_tokens=12, temperature=1)
        assert list(streamed)
        with pytest.raises(openai.NotFoundError, match="There are: base, champion\\."):
            ask(asked, "challenger")
        _wait(lambda: shadow.figures()["answers"] == 2)
        health = httpx.get(str(asked.base_url).replace("/v1/", "/health")).json()
        assert health["status"] == "ok" and health["shadow"] == shadow.figures()
    kept = lines(two.kept)
    champions, shadows = ([one for one in kept if one["model"] == name] for name in ("champion", "challenger"))
    assert [one["shadow_of"] for one in shadows] == [one["id"] for one in champions] and not any(
        "shadow_of" in one for one in champions
    )
    assert [one["sampling"] for one in shadows] == [one["sampling"] for one in champions] and champions[0]["messages"][-1][
        "content"
    ] == first
    (alone,) = start.open_agents(two.found[1:], {}, two.how)
    with client([alone]) as asked:
        assert ask(asked, "challenger") == shadows[0]["messages"][-1]["content"]
    assert "challenger answered 2 turns beside champion; with the same tokens in 0" in shadow.summary()


class Slow:
    """An engine that gives nothing until it is let, and calls the watch of a turn before it does."""

    most = 10_000

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.go = threading.Event()

    def ask(self, ids: Sequence[int], sampling: Any, watch: Any = None) -> Future[Generated]:
        self.asked.append(watch)
        answer: Future[Generated] = Future()

        def work() -> None:
            while not watch([1]) and not self.go.is_set():
                time.sleep(0.001)
            answer.set_result(Generated("x", [5, 6], [0.0, 0.0], "length"))

        threading.Thread(target=work, daemon=True).start()
        return answer


def test_a_shadow_waits_gives_way_drops_and_tells(two: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """Its turn ends when somebody comes and is begun again; what finds no room is dropped; what it cannot answer breaks nothing."""
    (served,) = start.open_agents(two.found, {}, two.how)
    slow: Any = Slow()
    shadow = Shadow("champion", slow, "", "challenger", served.chats["challenger"], waiting=2)
    with client([served], shadow) as asked:
        ask(asked, "champion")
        _wait(lambda: len(slow.asked) == 1)
        begun = time.monotonic()
        assert all(ask(asked, "champion") for _ in range(4)), "nobody waits for the shadow, which has not answered one"
        assert time.monotonic() - begun < 30 and shadow.figures()["dropped"] == 2 and shadow.figures()["waiting"] == 2
        _wait(lambda: len(slow.asked) >= 2)  # it gave way, and has begun again
        ask(asked, "challenger")
        assert shadow.figures()["dropped"] == 2, "only the champion's chats are put to it"
        slow.go.set()
        _wait(lambda: shadow.figures()["answers"] == 3)
        slow.most = 1
        ask(asked, "champion")
        _wait(lambda: shadow.figures()["failed"] == {"ValueError: a conversation fills the context of 1 tokens": 1})
    told = capsys.readouterr().err
    assert told.count("2 chats wait for it; further ones are dropped") == 1 and "it could not answer (ValueError" in told
    assert "2 dropped, as the queue was full; 1 failed" in shadow.summary()


def _wait(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_command_tells_who_is_served_and_at_the_end_what_the_shadow_did(
    folders: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAIRN_DEBUG", "1")  # the streams stay open for the next test
    monkeypatch.setattr(interrupt, "_message", interrupt.MESSAGE)
    monkeypatch.setattr(source, "STATE", folders.state)
    served: list[Any] = []
    monkeypatch.setattr(run, "serve", lambda *given: (served.append(given), interrupt._say()))
    one, two = str(folders.one), str(folders.two)
    assert main(["serve", one, two, "--name", "first", "--shadow", "--port", str(free_port()), "--max-tokens", "200"]) == 0
    engines, shadow = served[0][:2]
    assert [one.names for one in engines] == [["base", "first"]] and (shadow.first, shadow.second) == ("first", two)
    out, err = capfd.readouterr()
    assert f"{two} answers beside it, for the log." in out and "base: no chat, token ids alone" in out
    assert f"stopped; nothing is served any more. {two} answered 0 turns beside first" in err
    shadow.end()
    engines[0].thread.end()


def test_two_that_are_one_or_three_are_refused(
    two: SimpleNamespace, folders: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(folders.one)
    for texts, said in (
        ([one] * 3, "one or two can be served"),
        ([one, one], "are the same model"),
        ([one, "--shadow", "--keep", "no"], "log alone"),
    ):
        assert main(["serve", *texts, "--port", "8123"]) == 2
        assert said in capsys.readouterr().err
    assert [one.name for one in start.agents([one, str(folders.two)])] == [one, str(folders.two)], "both folders are called model"
