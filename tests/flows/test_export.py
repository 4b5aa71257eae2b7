"""`cairn export`: the data sets are read as they are by `datasets`, chat templates and TRL; both shapes lose nothing; the card counts.

By hand: a turn that says "I look it up." and makes two calls, whose two answers follow, is one function_call turn whose value is a list
of two calls, and one observation turn whose value is a list of two answers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.exports.export_rows import Wish, export, exported
from flows.exports.formats import from_sharegpt, to_sharegpt
from flows.exports.sources import Source, find
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.running import call, context
from tasks.engine.settings import load
from tasks.engine.shards import sharded
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.system_prompt import system_message
from tests.conftest import ROOT, Project

Message = dict[str, Any]


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, str]]:
    """A store with the worlds, generate and filter artifacts of a small run, and their identities."""
    state = tmp_path_factory.mktemp("state")
    overrides = (
        ("generate.apigen_mt.problems", 24),
        ("generate.apigen_mt.attempts", 2),
        ("generate.apigen_mt.validation", 0.3),
        ("roles.agent.errors", {"forgets_second_request": 0.4, "wrong_total": 0.5}),
        ("filter.rejection_sampling.min_score", 0.0),
    )
    plan = Plan.open(load(ROOT, "smoke", overrides), state)
    critique = tmp_path_factory.mktemp("critique")
    tables.write_rows(critique / "critiques.parquet", schemas.CRITIQUE, [])
    found = {"critique": plan.store.put(critique)}
    for stage in ("worlds", "generate", "filter"):
        inputs = {name: found[name] for name in plan.stages[stage].inputs}
        job = job_of(plan, stage, inputs)
        out, scratch = plan.store.workbench(job.key.digest)
        spec = job.spec(out, scratch, {name: plan.store.view(one) for name, one in inputs.items()})
        figures = call(spec, context(spec, quiet, quiet, sharded(scratch)))
        found[stage] = plan.store.put(out)
        plan.store.record(job.key, found[stage], {"figures": figures})
    return plan, found


def source_of(made: tuple[Plan, dict[str, str]], stage: str) -> Source:
    plan, found = made
    return find(stage, f"artifact:{found[stage]}", ROOT, plan.store)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def loaded(folder: Path, tmp_path: Path) -> Any:
    """The data set as its users load it: by the folder's card."""
    from datasets import load_dataset

    return load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_an_artifact_is_named_by_what_tables_print_of_it(made: Any) -> None:
    """And where the workspace has no rows, those of an experiment are named so."""
    plan, found = made
    for stage in ("generate", "filter"):
        short = f"artifact:{found[stage][:12]}"
        assert find(stage, short, ROOT, plan.store) == source_of(made, stage)
        with pytest.raises(
            BadInput, match=rf"data/{stage} is not there; .* in the store and not in data/. The newest there: --from {short}"
        ):
            find(stage, "", plan.settings.project / "nowhere", plan.store)
    with pytest.raises(BadInput, match=r"artifact:0123456789: no result of this store or of dvc.lock has an identity that begins with"):
        find("generate", "artifact:0123456789", ROOT, plan.store)


@pytest.mark.parametrize("file", ["parquet", "jsonl"])
def test_datasets_reads_messages_as_they_were(made: Any, tmp_path: Path, file: str) -> None:
    """Loaded through the card: every split, every message and every tool with its own keys and no others."""
    source = source_of(made, "generate")
    export(source, tmp_path / "set", Wish(file=file))
    found = loaded(tmp_path / "set", tmp_path)
    assert set(found) == {"train", "validation"}
    wanted = {row["traj_id"]: exported(source, row, "messages") for row in source.rows() if row["accepted"]}
    got = {row["id"]: row for split in found.values() for row in split}
    assert set(got) == set(wanted) and len(got) > 20
    for name, row in got.items():
        assert row["messages"] == wanted[name]["messages"] and row["tools"] == wanted[name]["tools"]
        assert row["lineage"] == wanted[name]["lineage"] and row["accepted"]


@pytest.mark.parametrize("file", ["parquet", "jsonl"])
def test_sharegpt_comes_back_as_the_same_messages(made: Any, tmp_path: Path, file: str) -> None:
    source = source_of(made, "generate")
    export(source, tmp_path / "set", Wish(format="sharegpt", file=file, accepted_only=False))
    wanted = {row["traj_id"]: exported(source, row, "messages") for row in source.rows()}
    got = [row for split in loaded(tmp_path / "set", tmp_path).values() for row in split]
    assert len(got) == len(wanted)
    for row in got:
        messages, tools = from_sharegpt(row)
        assert messages == wanted[row["id"]]["messages"] and tools == wanted[row["id"]]["tools"]
        assert {turn["from"] for turn in row["conversations"]} <= {"human", "gpt", "function_call", "observation"}
        sides = [turn["from"] in ("human", "observation") for turn in row["conversations"]]
        assert sides == [place % 2 == 0 for place in range(len(sides))], "readers want the two sides in turn"


def test_the_shape_by_hand() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "get", "arguments": {"n": n}}} for n in (1, 2)]
    messages: list[Message] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "I look it up.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "name": "get", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "name": "get", "content": "two"},
        {"role": "assistant", "content": "One and two."},
    ]
    row = to_sharegpt(messages, [{"type": "function"}])
    assert row["system"] == "Be kind." and json.loads(row["tools"]) == [{"type": "function"}]
    assert [(turn["from"], turn["value"]) for turn in row["conversations"]] == [
        ("human", "Hi"),
        ("function_call", '[{"name": "get", "arguments": {"n": 1}}, {"name": "get", "arguments": {"n": 2}}]'),
        ("observation", '["one", "two"]'),
        ("gpt", "One and two."),
    ]
    assert from_sharegpt(row) == (messages, [{"type": "function"}])
    single = to_sharegpt([messages[1], {**messages[2], "tool_calls": calls[:1]}, messages[3]], [])["conversations"]
    assert single[1]["value"] == '{"name": "get", "arguments": {"n": 1}}' and single[2]["value"] == "one"
    with pytest.raises(ValueError, match="role 'developer'"):
        to_sharegpt([{"role": "developer", "content": "x"}], [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda leaf: st.lists(leaf) | st.dictionaries(st.text(), leaf)
)
CALLS = st.builds(
    lambda name, made, arguments: {"id": name, "type": "function", "function": {"name": made, "arguments": arguments}},
    st.text(),
    st.text(),
    st.dictionaries(st.text(), VALUES) | VALUES,
)
TURNS = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.text()),
    st.builds(lambda text: {"role": "assistant", "content": text}, st.text()),
    st.builds(
        lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls},
        st.text(),
        st.lists(CALLS, min_size=1, max_size=3),
    ),
    st.builds(
        lambda text, about: {"role": "tool", **about, "content": text},
        st.text(),
        st.fixed_dictionaries({}, optional={"tool_call_id": st.text(), "name": st.text()}),
    ),
)


@given(st.lists(TURNS), st.text(min_size=1) | st.none(), st.lists(st.dictionaries(st.text(), VALUES), max_size=2))
def test_the_way_there_and_back_loses_nothing(turns: list[Message], system: str | None, tools: list[Any]) -> None:
    messages = [*([{"role": "system", "content": system}] if system else []), *turns]
    assert from_sharegpt(json.loads(json.dumps(to_sharegpt(messages, tools)))) == (messages, tools)


def test_a_chat_template_reads_the_rows(made: Any, tmp_path: Path) -> None:
    """The tiny tokenizer's template (Qwen3's) over a loaded row: the policy, every tool and every call with exactly its arguments."""
    from tests.chat.talks import tokenizer

    source = source_of(made, "generate")
    export(source, tmp_path / "set", Wish())
    row = loaded(tmp_path / "set", tmp_path)["train"][0]
    text = tokenizer().apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)
    world = load_all(source.worlds)[row["world"]]
    assert world.policy.strip() in text and all(f'"name": "{name}"' in text for name in world.tools) and "null" not in text
    for message in row["messages"]:
        for one in message.get("tool_calls") or ():
            said = f'{{"name": "{one["function"]["name"]}", "arguments": {json.dumps(one["function"]["arguments"])}}}'
            assert f"<tool_call>\n{said}\n</tool_call>" in text


def test_trl_prepares_the_rows(made: Any, tmp_path: Path) -> None:
    """SFTTrainer takes the loaded set as it is, with assistant_only_loss: what is trained are the agent's turns and nothing else."""
    import torch
    from trl import SFTConfig, SFTTrainer

    from tasks.checkpoints import tiny
    from tests.chat.talks import tokenizer, turn_text

    export(source_of(made, "generate"), tmp_path / "set", Wish())
    rows_ = loaded(tmp_path / "set", tmp_path)["train"].select(range(3))
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=tiny.tiny_qwen3(tokenizer(), layers=2, width=32, heads=2),
        args=SFTConfig(
            output_dir=str(tmp_path / "out"),
            assistant_only_loss=True,
            max_length=None,
            max_steps=1,
            per_device_train_batch_size=1,
            loss_type="nll",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            bf16=False,
        ),
        train_dataset=rows_,
        processing_class=tokenizer(),
    )
    for row, prepared in zip(rows_, trainer.train_dataset, strict=True):
        trained = [token for token in prepared["labels"] if token != -100]
        own = "".join(turn_text(message) for message in row["messages"] if message["role"] == "assistant")
        assert "".join(tokenizer().decode(trained).split()) == "".join(own.split())
    trainer.train()
    assert trainer.state.global_step == 1


def test_the_system_message_is_the_agents_own(made: Any) -> None:
    source = source_of(made, "generate")
    for name, world in load_all(source.worlds).items():
        assert source.system_and_tools(name) == (system_message(world, {"tools": "none", "policy": "full"}), world.schemas())
    with pytest.raises(BadInput, match=r"no frozen world 'mars', .* there: airline, retail"):
        source.system_and_tools("mars")


class TestWhatIsExported:
    """Which rows, and what the card says of them."""

    @staticmethod
    def ids(folder: Path) -> set[str]:
        lines = [line for path in (folder / "data").iterdir() for line in path.read_text().splitlines()]
        return {json.loads(line)["id"] for line in lines}

    def test_accepted_all_and_one_split(self, made: Any, tmp_path: Path) -> None:
        for stage, mark in (("generate", "reward"), ("filter", "keep")):
            source = source_of(made, stage)
            everything = list(source.rows())
            export(source, tmp_path / f"{stage}-some", Wish(file="jsonl"))
            assert self.ids(tmp_path / f"{stage}-some") == {row["traj_id"] for row in everything if row[mark]}
            export(source, tmp_path / f"{stage}-all", Wish(file="jsonl", accepted_only=False))
            assert self.ids(tmp_path / f"{stage}-all") == {row["traj_id"] for row in everything}
            export(source, tmp_path / f"{stage}-one", Wish(file="jsonl", accepted_only=False, split="validation"))
            assert self.ids(tmp_path / f"{stage}-one") == {row["traj_id"] for row in everything if row["split"] == "validation"}
            assert [path.name for path in (tmp_path / f"{stage}-one/data").iterdir()] == ["validation.jsonl"]
        with pytest.raises(BadInput, match="no accepted conversation of split 'test' to export"):
            export(source, tmp_path / "none", Wish(split="test"))
        assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".*"))

    def test_the_same_bytes_again(self, made: Any, tmp_path: Path) -> None:
        for name in ("one", "two"):
            export(source_of(made, "filter"), tmp_path / name, Wish())
        files = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
        assert len(files) == 3
        assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)

    def test_the_card_counts_what_lies_there(self, made: Any, tmp_path: Path) -> None:
        plan, found = made
        counts = export(source_of(made, "filter"), tmp_path / "set", Wish(license="cc-by-4.0"))
        card = (tmp_path / "set/README.md").read_text()
        head = yaml.safe_load(card.split("---")[1])
        assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
        assert head["configs"][0]["data_files"] == [
            {"split": split, "path": f"data/{split}.parquet"} for split in ("train", "validation")
        ]
        generated = json.loads((plan.store.state / "keys" / f"{_key(plan, found['generate'])}.json").read_text())["figures"]
        base, talks = generated["base"], generated["conversations"]
        assert f"| blueprints started | {48} | {base['attempts']} attempts" in card
        assert f"| blueprints accepted | {base['accepted']} (" in card
        assert f"| conversations played | {talks['played']} |" in card and f"| conversations won | {talks['won']} (" in card
        assert f"| conversations kept by the filter | {counts.played.total() - counts.dropped.total()} (" in card
        assert f"failed_state {counts.dropped['failed_state']}" in card and counts.dropped["failed_state"] > 0
        assert "| agent | scripted |  |  | forgets_second_request 0.4, wrong_total 0.5 |" in card
        assert "*simulated*" in card and "no role was played by an endpoint" in card
        assert all(identity in card for stage, identity in found.items() if stage != "critique") and "seed 0" in card
        assert "0 problems or entries of a lineage are in more than one split." in card
        for (split, world), n in counts.written.items():
            column = ["train", "validation"].index(split)
            line = next(line for line in card.splitlines() if line.startswith(f"| {world} | "))
            assert line.split(" | ")[1 + column].strip(" |") == str(n)

    def test_a_card_invents_nothing_without_a_record(self, made: Any, tmp_path: Path) -> None:
        """A folder from elsewhere: rows and worlds, no record and no blueprints."""
        import shutil

        from tasks.engine.artifact import Store

        plan, found = made
        shutil.copytree(plan.store.view(found["filter"]), tmp_path / "data/filter")
        with pytest.raises(BadInput, match="the frozen worlds of its conversations are neither in the store nor beside it"):
            find("filter", "", tmp_path, Store(tmp_path / "state"))
        shutil.copytree(plan.store.view(found["worlds"]), tmp_path / "data/worlds")
        export(find("filter", "", tmp_path, Store(tmp_path / "state")), tmp_path / "set", Wish())
        card = (tmp_path / "set/README.md").read_text()
        assert "license: unknown" in card and "their yield is unknown" in card
        assert "revisions and error rates are unknown" in card and "The record of the run is not at hand." in card
        assert "blueprints started" not in card and "seed" not in card

    def test_prices_are_those_of_the_record(self, made: Any, tmp_path: Path) -> None:
        source = source_of(made, "generate")
        record = json.loads(json.dumps(source.records["generate"]))
        record["figures"]["spent"] = {
            "judge": {"calls": 30, "tokens_in": 900, "tokens_out": 90, "money": 0.25, "by": {"big-one-07": 30}}
        }
        record["parts"]["settings"]["roles.judge"] = {"backend": "openai_compatible", "model": "big-one", "errors": {}}
        paid = replace(source, records={"generate": record}, made=record)
        export(paid, tmp_path / "set", Wish())
        card = (tmp_path / "set/README.md").read_text()
        assert "| judge | 30 | 900 | 90 | 0.25 |" in card and "| judge | openai_compatible | big-one | unpinned | none |" in card
        assert "judge was answered by big-one-07 (30)." in card
        del record["figures"]["spent"]
        export(paid, tmp_path / "other", Wish())
        assert "Not recorded." in (tmp_path / "other/README.md").read_text()


def _key(plan: Plan, identity: str) -> str:
    paths = (plan.store.state / "keys").glob("*.json")
    return next(path.stem for path in paths if json.loads(path.read_text())["identity"] == identity)


def test_bad_input_is_named(made: Any, tmp_path: Path) -> None:
    plan, found = made
    source = source_of(made, "generate")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(BadInput, match="full: already there, and not an empty folder"):
        export(source, tmp_path / "full", Wish())
    with pytest.raises(BadInput, match=r"--license 'CC BY': expected an identifier such as cc-by-4\.0"):
        export(source, tmp_path / "out", Wish(license="CC BY"))
    with pytest.raises(BadInput, match=r"no trajectories\.parquet here, so it is not what stage 'generate' leaves"):
        find("generate", f"artifact:{found['worlds']}", ROOT, plan.store)
    with pytest.raises(BadInput, match="data/generate is not there; `cairn run --to generate` makes it"):
        find("generate", "", tmp_path, plan.store)
    assert not (tmp_path / "out").exists()


def test_the_command(project: Project, made: Any) -> None:
    """In a project whose data/ holds the artifacts: the set is written, the missing licence is said, mistakes end with 2."""
    plan, found = made
    for stage in ("worlds", "generate"):
        plan.store.lay_out(found[stage], project.folder / "data" / stage)
    answer = project.cairn("export", "generate", "set", "--format", "sharegpt", "--file", "jsonl")
    assert "conversations in set, with a card" in answer.stdout and "license: unknown" in answer.stderr
    assert sorted(path.name for path in (project.folder / "set").rglob("*")) == ["README.md", "data", "train.jsonl", "validation.jsonl"]
    again = project.cairn("export", "generate", "set", check=False)
    assert again.returncode == 2 and "already there" in again.stderr and "Traceback" not in again.stderr


def test_a_customer_in_two_splits_is_told() -> None:
    """Counted, not promised: rows from elsewhere may be split in another way."""
    from flows.exports.card import Counts

    counts = Counts()
    row = {"world": "shop", "family": "f", "problem_id": "p1", "lineage": ["u1"], "agent": "a", "human": "h", "messages": []}
    counts.write({**row, "split": "train"})
    counts.write({**row, "split": "validation", "problem_id": "p2"})
    assert [entry for entry, splits in counts.shared.items() if len(splits) > 1] == [("shop", "u1")]
