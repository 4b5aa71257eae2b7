"""Chat formats found and proven on tokenizers of many families; masks held against transformers' own; what is refused, and why.

By hand: a template that writes `<u>text<e>` for users and `<a>text<e>` for the assistant, and asks with `<a>`, gives the row
`<u>Hi<e><a>Hello<e>` for one exchange; the assistant's own is `Hello<e>`.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from infra.chat_tokenizers import backend, originals, small_tokenizer
from tasks.chat import proof
from tasks.chat.call_frames import call
from tasks.chat.families import known
from tasks.chat.local import kept, time_limit
from tasks.chat.local.format import BY_TURN, WHOLE, ChatFormat, ChatRefused
from tasks.chat.local.parsing import parse_turn
from tasks.chat.local.tokens import decode
from tasks.chat.proof import check_vocabulary, find, prove
from tasks.chat.samples import TOOLS, samples
from tasks.checkpoints import folders, tiny
from tasks.contract.params import BadInput
from tasks.sft.core.data import IGNORED, load_data
from tests.base.outside import checkpoint
from tests.chat.talks import dataset, worlds
from tests.playing import checkpoint_agent

USER, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TINY = (
    "{% for m in messages %}{{ '<|u|>' if m.role == 'user' else '<|s|>' if m.role == 'system' else '<|a|>' }}{{ m.content }}<|e|>"
    "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)
QUICK = 30
"""Conversations: the whole number is proven by `make bench-chat`."""


def trained(tokenizer: Any, rows: list) -> list[str]:
    """The text of each trained span, found by walking the mask (not by how it was made)."""
    texts = []
    for row in rows:
        span: list[int] = []
        for token, own in [*zip(row.ids, row.mask, strict=True), (0, 0)]:
            if own:
                span.append(token)
            elif span:
                texts.append(decode(tokenizer, [span])[0])
                span = []
    return texts


def test_a_row_by_hand() -> None:
    tokenizer = small_tokenizer(TINY)
    chat = find(tokenizer, "hermes", count=QUICK)
    (row,) = chat.rows(tokenizer, [(None, [USER, REPLY], ())])[0]
    assert decode(tokenizer, [row.ids])[0] == "<|u|>Hi<|e|><|a|>Hello<|e|>"
    assert trained(tokenizer, [row]) == ["Hello<|e|>"]
    assert decode(tokenizer, [chat.suffix_ids(tokenizer, None, [USER, REPLY, USER])])[0] == "<|u|>Hi<|e|><|a|>"


@pytest.mark.parametrize(
    ("name", "form", "said", "called"),
    [
        ("qwen2_5", WHOLE, "Hello<|im_end|>", '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "7"}}\n</tool_call><|im_end|>'),
        ("gptoss", BY_TURN, "<|channel|>final<|message|>Hello<|return|>",
         ' to=functions.get_order<|channel|>commentary json<|message|>{"order_id": "7"}<|call|>'),
        ("llama3_1", WHOLE, "Hello<|eot_id|>", '{"name": "get_order", "parameters": {"order_id": "7"}}<|eot_id|>'),
        ("lfm2_2_5", WHOLE, "Hello<|im_end|>", "<|tool_call_start|>[get_order(order_id='7')]<|tool_call_end|><|im_end|>"),
        ("glm4moe", WHOLE, "\nHello<|user|>",
         "\n<tool_call>get_order\n<arg_key>order_id</arg_key>\n<arg_value>7</arg_value>\n</tool_call><|observation|>"),
        ("gemma4_v4", WHOLE, "Hello<turn|>", '<|tool_call>call:get_order{order_id:<|"|>7<|"|>}<tool_call|><|tool_response>'),
        ("qwen3", WHOLE, "Hello<|im_end|>", '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "7"}}\n</tool_call><|im_end|>'),
    ],
)  # fmt: skip
def test_the_trained_tokens_are_what_the_family_writes(name: str, form: str, said: str, called: str) -> None:
    """Written down by hand from each family's documentation; "7" stays a text, also where values stand bare."""
    tokenizer = small_tokenizer(originals()[name])
    chat = find(tokenizer, count=QUICK)
    assert chat.form == form
    asked = {"role": "assistant", "content": "", "tool_calls": [call("get_order", order_id="7")]}
    talk = [USER, asked, {"role": "tool", "tool_call_id": "call_0", "content": "{}"}, REPLY]
    rows = chat.rows(tokenizer, [("You help.", talk, TOOLS)])[0]
    assert trained(tokenizer, rows) == [called, said]
    own = [[token for token, mine in zip(row.ids, row.mask, strict=True) if mine] for row in rows]
    if form == BY_TURN:
        assert parse_turn(chat, tokenizer, own[0], 3, TOOLS) == (
            {**asked, "tool_calls": [{**asked["tool_calls"][0], "id": "call_3"}]},
            "",
        )
        assert parse_turn(chat, tokenizer, own[1], 0, TOOLS) == (REPLY, "")
        assert len(rows) == 2 and all(row.mask == sorted(row.mask) for row in rows)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_8", "lfm2_v2", "nemotron_3_nano", "glm4moe"])
def test_masks_are_those_of_transformers_own_tracker(name: str) -> None:
    """Where TRL marks what the assistant writes ({% generation %}), transformers' own mask trains the same text: blanks behind an end and
    an end that stands before the next message apart."""
    marked = known()[name][1]
    tokenizer = small_tokenizer(originals()[name])
    chat = find(tokenizer, count=QUICK)
    for talk in samples(20, 5, (), chat.most_calls, chat.words_beside_calls):
        theirs = tokenizer.apply_chat_template(
            [{"role": "system", "content": "S"}, *chat.readable(talk.messages)],
            chat_template=marked, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True, **options(chat),
        )  # fmt: skip
        text = "".join(decode(tokenizer, [[t for t, own in zip(theirs["input_ids"], theirs["assistant_masks"], strict=True) if own]]))
        ours = "".join(trained(tokenizer, chat.rows(tokenizer, [("S", talk.messages, TOOLS)])[0]))
        assert squeezed(ours, chat) == squeezed(text, chat)


def options(chat: ChatFormat) -> dict[str, Any]:
    return {key: value for key, value in chat.variables.items() if not isinstance(value, str)}


def squeezed(text: str, chat: ChatFormat) -> str:
    """Without blanks, ends and what the prompt of a template without thoughts already holds."""
    for literal in (*chat.ends, "<think>", "</think>"):
        text = text.replace(literal, "")
    return "".join(text.split())


def test_what_is_found_is_kept_as_data() -> None:
    for name in ("gemma4_v4", "gptoss", "qwen2_5"):
        chat = find(small_tokenizer(originals()[name]), count=QUICK)
        assert kept.from_json(kept.to_json(chat)) == chat
        assert json.loads(kept.to_json(chat))["about"]["conversations"] == QUICK


def test_a_thought_is_no_part_of_a_message() -> None:
    tokenizer = small_tokenizer(originals()["gptoss"])
    chat = find(tokenizer, count=QUICK)
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert parse_turn(chat, tokenizer, ids) == (REPLY, "")


def test_a_template_that_reads_the_clock_gives_the_same_prompt_on_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = find(small_tokenizer(originals()["llama3_2"]), count=QUICK)
    assert "26 Jul 2024" in chat.prompt_text("S", [USER], TOOLS)
    assert "strftime_now(" not in chat.template


# What is refused.


def refused(tokenizer: Any, named: str = "auto") -> ChatRefused:
    with pytest.raises(ChatRefused) as error:
        find(tokenizer, named, count=QUICK)
    return error.value


def test_no_template_is_refused() -> None:
    assert "has no chat template" in str(refused(small_tokenizer(None)))


def test_a_template_that_raises_is_quoted() -> None:
    why = refused(small_tokenizer(originals()["gemma"]))
    assert why.failed == "renders" and "System role not supported" in str(why)


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("template", [LOOPS, "{{ lipsum(n=10**9) }}", "{% if tools %}" + LOOPS + "{% endif %}" + TINY])
def test_a_template_that_does_not_end_is_refused_in_any_thread(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "SECONDS", 0.3)
    with ThreadPoolExecutor(1) as other, pytest.raises(BadInput, match=r"its chat template does not come to an end: .* 0\.3 s"):
        other.submit(find, small_tokenizer(template), count=QUICK).result()


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("{{- messages[0]['content'] }}", "", "the system message beside tools"),
        ("for tool in tools", "for tool in tools[:1]", "tools behind the first"),
    ],
)
def test_a_template_that_drops_the_policy_or_tools_beside_tools_is_refused(one: str, other: str, what: str) -> None:
    whole = originals()["qwen2_5"]
    assert one in whole  # the part with tools comes first
    why = refused(small_tokenizer(whole.replace(one, other, 1)))
    assert f"the template drops {what};" in str(why)


@pytest.mark.parametrize(("name", "what"), [("llama3", "tool calls"), ("phi3", "tool calls")])
def test_dropped_calls_are_refused_and_hermes_is_named(name: str, what: str) -> None:
    tokenizer = small_tokenizer(originals()[name])
    why = refused(tokenizer)
    assert why.failed == "drops tool calls" and what in str(why) and "hermes" in str(why)
    assert find(tokenizer, "hermes", count=QUICK).form == WHOLE


def test_a_prompt_that_training_never_sees_is_refused() -> None:
    """DeepSeek's template asks with an open thought, and writes turns without one."""
    why = refused(small_tokenizer(originals()["deepseekv3"]))
    assert why.failed == "prompt" and "<think>" in str(why)


def test_an_end_that_is_no_token_is_refused() -> None:
    words = TINY.replace("<|e|>", "\n").replace("<|u|>", "User: ").replace("<|s|>", "System: ").replace("<|a|>", "Assistant: ")
    assert "no token of the tokenizer ends a turn" in str(refused(small_tokenizer(words), "hermes"))


def test_a_tokenizer_that_changes_texts_is_refused() -> None:
    from tokenizers import normalizers

    tokenizer = small_tokenizer(TINY)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    why = refused(tokenizer, "hermes")
    assert why.failed == "round trip" and "conversation 0" in str(why)
    assert backend().normalizer is None


def test_a_template_that_loses_what_it_rendered_is_refused_on_the_conversation() -> None:
    """Only texts with three blanks are changed: the sentinels do not show it, the random conversations do."""
    cut = TINY.replace("{{ m.content }}", "{{ m.content | replace('Done.', 'Gone.') }}")
    tokenizer = small_tokenizer(cut)
    why = refused(tokenizer, "hermes")
    assert why.failed == "parse" and "Gone." in str(why) and "conversation" in str(why)


RESULT = "{{ m.content[:200] if '<tool_response>' in m.content else m.content }}"


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("{{ m.content }}", RESULT, r"long texts .* result of a tool \(message 4 of 7\): of its 1,200 words \d+ are"),
        (
            "{{ m.content }}",
            "{{ m.content | truncate(20) }}",
            r"long texts .* system message \(message 1 of 7\): of its 1,200 words 1 are",
        ),
        ("{{ m.content }}", "{{ m.content[-9000:] }}", "long texts .* system message .*: of its 1,200 words 0 are"),
        (
            "in messages",
            "in (messages if messages|length < 12 else messages[:1] + messages[-11:])",
            r"80 messages .* user's words \(message 2 of 81\)",
        ),
    ],
)
def test_a_template_that_cuts_texts_or_forgets_messages_is_refused(one: str, other: str, what: str) -> None:
    """Short conversations do not show it."""
    assert one in TINY
    why = refused(small_tokenizer(TINY.replace(one, other)), "hermes")
    assert why.failed == "cut" and re.search(what, str(why))


def test_a_template_with_tools_that_cuts_is_refused() -> None:
    """Its own, not taken for the one of a family that TRL has a variant of."""
    for one, other in (("message.content }}", "message.content[:500] }}"), ("tool | tojson", "tool | tojson | truncate(900)")):
        whole = originals()["qwen2_5"]
        assert one in whole
        assert refused(small_tokenizer(whole.replace(one, other))).failed == "cut"


def test_a_template_that_writes_the_past_anew_is_proven_by_turn() -> None:
    """Every past reply loses its words; the cost is said."""
    forgets = TINY.replace("{{ m.content }}", "{{ m.content if m.role != 'assistant' or loop.last else '...' }}")
    tokenizer = small_tokenizer(forgets)
    chat = find(tokenizer, "hermes", count=QUICK)
    assert chat.form == BY_TURN and chat.about["cost"] > 1.2
    with pytest.raises(ChatRefused, match="prefix: the template writes the past anew"):
        prove(tokenizer, chat.with_form(WHOLE), QUICK)


def test_an_end_may_stand_before_the_next_message() -> None:
    """As GLM does it: the model writes the token that begins the user's turn."""
    tokenizer = small_tokenizer(TINY.replace("<|e|>", ""))
    chat = find(tokenizer, "hermes", count=QUICK)
    (row,) = chat.rows(tokenizer, [(None, [USER, REPLY], ())])[0]
    assert (chat.form, trained(tokenizer, [row])) == (WHOLE, ["Hello<|u|>"])
    assert decode(tokenizer, [chat.suffix_ids(tokenizer, None, [USER, REPLY, USER])])[0] == "Hi<|a|>"


def test_more_tokens_than_embeddings_are_refused() -> None:
    tokenizer = small_tokenizer(TINY)
    check_vocabulary(tokenizer, len(tokenizer) + 100)
    with pytest.raises(ChatRefused, match=f"token {len(tokenizer) - 1}.*only 50 rows"):
        check_vocabulary(tokenizer, 50)


# In form by turn: rows of training, and a checkpoint that acts.

FORGETS = TINY.replace("{{ m.content }}", "{{ m.content if m.role != 'assistant' or loop.last else '...' }}")


def by_turn() -> Any:
    tokenizer = small_tokenizer(FORGETS)
    kept.keep(tokenizer, find(tokenizer, "hermes", count=QUICK))
    return tokenizer


def test_each_turn_is_a_row_behind_what_a_server_would_send(tmp_path: Path) -> None:
    """Of ten conversations of three turns thirty rows; only the turns that a filter marked train."""
    tokenizer = by_turn()
    file = dataset(tmp_path, 10) / "dataset.parquet"
    data = load_data(file, worlds(tmp_path / "worlds"), tokenizer, {"tools": "none", "policy": "none"}, 2048, lambda row: 1.0)
    rows = data.train + data.validation
    assert data.proven_turns == len(rows) == 3 * len({row.name.partition(",")[0] for row in rows}) and not data.dropped
    for row in rows:
        labels = [label for label in row.labels if label != IGNORED]
        assert row.ids[-len(labels) :] == labels and tokenizer.decode(labels).endswith("<|e|>")
        assert tokenizer.decode(row.ids[: -len(labels)]).endswith("<|a|>")


def test_a_checkpoint_reads_the_past_as_its_template_writes_it_now() -> None:
    """The second turn's prompt is whole, and says "..." where the first turn's words were."""
    from types import SimpleNamespace

    import torch

    tokenizer = by_turn()
    torch.manual_seed(0)
    model = tiny.tiny_qwen3(tokenizer, layers=2, width=32, heads=2).eval()
    agent = checkpoint_agent(model, tokenizer, {"tools": "none", "policy": "none"}, rows=1, max_turn_tokens=4, max_episode_tokens=400)
    world: Any = SimpleNamespace(name="shop", policy="", tools={}, schemas=list)
    talk = [USER]
    turns = []
    for _ in range(2):
        agent.send("one", talk, world, 3)
        ((_, turn),) = agent.poll()
        turns.append(turn)
        talk = [*talk, {"role": "assistant", "content": "Hello"}, USER]
    assert [turn.first for turn in turns] == [True, True]
    assert [tokenizer.decode(turn.prompt_ids) for turn in turns] == [
        "<|s|>You are the shop agent.<|e|><|u|>Hi<|e|><|a|>",
        "<|s|>You are the shop agent.<|e|><|u|>Hi<|e|><|a|>...<|e|><|u|>Hi<|e|><|a|>",
    ]
    assert all(len(turn.ids) == len(turn.logprobs) == 4 for turn in turns)


# The command.


def test_the_command_shows_what_is_trained_and_keeps_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_tokenizer(originals()["qwen3"]).save_pretrained(str(tmp_path / "qwen3"))
    assert main(["chat", "check", str(tmp_path / "qwen3"), "-n", "20", "--write"]) == 0
    said = capsys.readouterr().out
    assert (
        "1 row a conversation; sft and rl compute 1 times its tokens" in said
        and "whole, by TRL's qwen3_training" in said
        and "[[It was sent.<|im_end|>]]" in said
        and "\x1b" not in said
    )
    tokenizer = folders.load_tokenizer(tmp_path / "qwen3")
    assert kept.chat_of(tokenizer).form == WHOLE and tokenizer.chat_template == known()["qwen3"][1]
    assert main(["chat", "check", str(tmp_path / "qwen3"), "-n", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["about"]["turns"] > 20


def test_the_command_takes_what_a_road_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without tokenizer_config.json, and with hermes one without a template, which `--write` then brings."""
    alone, bare = checkpoint(tmp_path / "alone", TINY), checkpoint(tmp_path / "bare", template=None)
    (alone / "tokenizer_config.json").unlink()
    for folder in (alone, bare):
        assert main(["chat", "check", str(folder), "--format", "hermes", "-n", "20", "--write"]) == 0
        assert "whole, by text in messages (hermes)" in capsys.readouterr().out
        assert kept.chat_of(folders.load_tokenizer(folder)).style == "hermes"
    assert folders.load_tokenizer(bare).chat_template == proof.PLAIN


def test_the_command_says_what_a_format_by_turn_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_tokenizer(FORGETS).save_pretrained(str(tmp_path / "forgets"))
    assert main(["chat", "check", str(tmp_path / "forgets"), "-n", "20", "--format", "hermes", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["about"]
    rows = f"{about['turns'] / about['conversations']:.1f} rows a conversation"
    assert main(["chat", "check", str(tmp_path / "forgets"), "-n", "20", "--format", "hermes"]) == 0
    assert f"cost     {rows}; sft and rl compute {about['cost']:g} times its tokens" in capsys.readouterr().out and about["cost"] > 1.2


def test_the_command_refuses_with_the_property(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_tokenizer(originals()["llama3"]).save_pretrained(str(tmp_path / "llama3"))
    for name, file, text in (("cut", "tokenizer.json", '{"version": "1.'), ("other", "tokenizer_config.json", "[]")):
        small_tokenizer(originals()["llama3"]).save_pretrained(str(tmp_path / name))
        (tmp_path / name / file).write_text(text)
    small_tokenizer(None).save_pretrained(str(tmp_path / "bare"))
    for arguments, words in (
        ([str(tmp_path / "bare")], "bare: the tokenizer has no chat template"),
        ([str(tmp_path / "bare")], "Or --format hermes"),
        ([str(tmp_path / "cut")], "cut: its tokenizer cannot be loaded: Unterminated string"),
        ([str(tmp_path / "other")], "other: its tokenizer cannot be loaded"),
        ([str(tmp_path / "llama3")], "drops the tools and tool calls"),
        ([str(tmp_path)], "no tokenizer in it: none of tokenizer.json"),
        ([str(tmp_path / "nowhere")], "nowhere: not a folder. Allowed: a GGUF file, a folder, artifact:<identity>"),
        (["artifact:0123"], "'artifact:0123' names no checkpoint. Allowed: a folder"),
        (["models:/agent@champion", "--write"], "--write: models:/agent@champion is no folder of yours"),
        ([str(tmp_path / "llama3"), "-n", "0"], "1 or more"),
        ([str(tmp_path / "llama3"), "--format", "herms"], "Did you mean 'hermes'?"),
    ):
        assert main(["chat", "check", *arguments]) == 2
        assert words in capsys.readouterr().err
