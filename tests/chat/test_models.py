"""Chat format, tokenizer, parsing, mask proof.

By hand: for system "S" and messages [user "a", assistant "b", user "c", assistant "d"] the texts of the segments are
"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n" (read), "b<|im_end|>" (turn),
"\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n" (read), "d<|im_end|>" (turn).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.chat import mask_proof
from tasks.chat.local import parsing, qwen3_instruct
from tasks.chat.local.format import ChatRefused
from tasks.chat.local.kept import QWEN3_INSTRUCT, chat_of
from tasks.chat.local.tokens import Rendered
from tasks.chat.proof import find
from tasks.checkpoints import folders, saving, tiny
from tasks.contract.params import StageFailed
from tests.chat.talks import call, render, talk, tokenizer, turn_text

SYSTEM = "You are the retail agent."
TOOLS = [{"type": "function", "function": {"name": "find_user", "parameters": {"type": "object", "properties": {}}}}]


def whole(messages: list[dict], system: str = SYSTEM) -> list[dict]:
    return [{"role": "system", "content": system}, *messages]


def test_worked_example() -> None:
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    rendered = render(tokenizer(), "S", messages)
    spans = [tokenizer().decode([i for i, m in zip(rendered.ids, rendered.mask, strict=True) if m == want]) for want in (0, 1)]
    assert spans[1] == "b<|im_end|>d<|im_end|>"
    assert spans[0] == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
        "\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("seed", range(3))
def test_turn_by_turn_equals_the_chat_template(seed: int) -> None:
    """Ids and mask of the incremental rendering are those of apply_chat_template with its generation markers."""
    rendered = render(tokenizer(), SYSTEM, talk(seed))
    once = tokenizer().apply_chat_template(whole(talk(seed)), tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    size = len(rendered.ids)  # a row ends with its last turn
    assert once["input_ids"][:size] == rendered.ids
    assert once["assistant_masks"][:size] == rendered.mask and not any(once["assistant_masks"][size:])
    without = tokenizer().apply_chat_template(talk(seed), tokenize=True, return_dict=True)["input_ids"]
    row = render(tokenizer(), None, talk(seed)).ids
    assert without[: len(row)] == row


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompt", [False, True])
def test_template_is_the_text_of_qwen3_instruct_2507(tools: list | None, prompt: bool) -> None:
    """Our template reads as TRL's copy of the real one, for every beginning of a conversation, and keeps prefixes."""
    trl = pytest.importorskip("trl")
    theirs = (Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja").read_text(encoding="utf-8")
    for messages in (whole(talk(0)), talk(0)):
        before = ""
        for end in range(1, len(messages) + 1):
            how = {"tools": tools, "tokenize": False, "add_generation_prompt": prompt}
            ours = tokenizer().apply_chat_template(messages[:end], **how)
            assert ours == tokenizer().apply_chat_template(messages[:end], chat_template=theirs, **how)
            closed = tokenizer().apply_chat_template(messages[:end], tools=tools, tokenize=False)
            if messages[end - 1]["role"] != "tool" or messages[end]["role"] != "tool":
                assert closed.startswith(before)
                before = closed


def test_a_prompt_grows_by_the_turn_and_the_suffix() -> None:
    messages = talk(1)
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for one, two in itertools.pairwise(turns):
        turn = tokenizer()(turn_text(messages[one]), add_special_tokens=False)["input_ids"]
        longer = (
            QWEN3_INSTRUCT.prompt_ids(tokenizer(), SYSTEM, messages[:one])
            + turn
            + QWEN3_INSTRUCT.suffix_ids(tokenizer(), None, messages[:two])
        )
        assert longer == QWEN3_INSTRUCT.prompt_ids(tokenizer(), SYSTEM, messages[:two])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from([*qwen3_instruct.SPECIALS, "\n", " ", "\n\n x"]), min_size=1, max_size=4))
def test_any_text_survives(texts: list[str]) -> None:
    """Whatever users say, even the format's own markers, no turn is opened by data, and the proof holds."""
    messages = [
        message
        for text in texts
        for message in ({"role": "user", "content": text}, {"role": "assistant", "content": f"ok {QWEN3_INSTRUCT.plain(text)}."})
    ]
    rendered = render(tokenizer(), SYSTEM, messages)
    starts = rendered.ids.count(tokenizer().convert_tokens_to_ids(qwen3_instruct.START))
    assert starts == 1 + len(messages)
    assert mask_proof.prove_masks(QWEN3_INSTRUCT, tokenizer(), [mask_proof.Example("any", SYSTEM, messages, [rendered])]) == len(texts)


# The tokenizer.


def test_tokenizer_is_deterministic_and_bounded() -> None:
    texts = [message["content"] for seed in range(5) for message in talk(seed)]
    built = [tiny.build_tokenizer(texts, 330).backend_tokenizer.to_str() for _ in range(2)]
    assert built[0] == built[1]
    assert len(tiny.build_tokenizer(texts, 330)) <= 330
    with pytest.raises(ValueError, match="at least 263 entries, not 200"):
        tiny.build_tokenizer(texts, 200)


def test_identifiers_read_the_same_after_a_space_and_after_a_quote() -> None:
    """Groups of at most two digits, and no piece of a name or an id swallows what stands before it."""

    def pieces(text: str) -> list[str]:
        return [tokenizer().decode([token]) for token in tokenizer()(text)["input_ids"]]

    digits = tiny.build_tokenizer(["12 34 56 7 1234567"] * 5, 300)
    assert [digits.decode([token]) for token in digits("1234567")["input_ids"]] == ["12", "34", "56", "7"]
    for name in ("W1234567", "Ada", "ada_7", "get_order"):
        assert pieces(f"x {name}")[-len(pieces(name)) :] == pieces(name)
        assert pieces(f'{{"order_id": "{name}"')[-len(pieces(name)) - 1 : -1] == pieces(name)


def test_words_of_the_data_are_one_token_wherever_they_stand() -> None:
    """As an argument, inside an answer's text, and in prose before a full stop."""
    call = {"function": {"name": "get_product", "arguments": {"product": "mug"}}}
    answer = {"role": "tool", "content": '{"I1": "red mug 9"}'}
    refused = {"role": "tool", "content": '{"error": "no such thing"}'}
    words = tiny.data_words([{"role": "assistant", "tool_calls": [call]}, answer, refused])
    assert words == {"mug", "red"}
    text = 'The red mug. {"I1": "red mug 9"}'
    built = tiny.build_tokenizer([text] * 9, 400, words)
    pieces = [built.decode([token]) for token in built(text)["input_ids"]]
    assert (pieces.count("red"), pieces.count("mug"), "".join(pieces)) == (2, 2, text)


# Parsing.


def ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_a_turn_parses_back() -> None:
    for message in talk(3):
        if message["role"] == "assistant":
            first = int(message["tool_calls"][0]["id"][5:]) if message.get("tool_calls") else 0
            assert parsing.parse_turn(QWEN3_INSTRUCT, tokenizer(), ids(turn_text(message)), first) == (message, "")


CALL = '<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<tool_call>\n</tool_call>",
        "<tool_call>\n{not json}\n</tool_call>",
        '<tool_call>\n{"name": "x"}\n</tool_call>',
        '<tool_call>\n{"name": "x", "arguments": []}\n</tool_call>',
        '<tool_call>\n{"name": 3, "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "x", "arguments": {}, "more": 1}\n</tool_call>',
        '<tool_call>\n{"name": "x", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "x", "arguments": {"a": 1, "a": 2}}\n</tool_call>',
        '<tool_call>\n["x", {}]\n</tool_call>',
        '<tool_call>\n{"name": "x", "arguments": {}}',
        f"{CALL} and words",
        f"{CALL}\n</tool_call>",
        "words</tool_call>",
        "<tool_response>\nmine\n</tool_response>",
        "<tool_call>" + "[" * 3000,
    ],
)
def test_a_broken_turn_is_a_parse_error(text: str) -> None:
    message, error = parsing.parse_turn(QWEN3_INSTRUCT, tokenizer(), ids(text + qwen3_instruct.END))
    assert error == "parse_error"
    assert message == {"role": "assistant", "content": text}


def test_a_turn_without_an_end_ran_out_of_tokens() -> None:
    assert parsing.parse_turn(QWEN3_INSTRUCT, tokenizer(), ids("I cancel")) == (
        {"role": "assistant", "content": "I cancel"},
        "max_tokens",
    )
    assert parsing.parse_turn(QWEN3_INSTRUCT, tokenizer(), [])[1] == "max_tokens"


def test_calls_are_data() -> None:
    """Names and arguments come back as they were written, whatever they say; ids count up from the given number."""
    wild = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call(4, "__import__('os')", path="../../etc"), call(5, "x", q='é"')],
    }
    assert parsing.parse_turn(QWEN3_INSTRUCT, tokenizer(), ids(turn_text(wild)), first_call=4) == (wild, "")


# The mask proof.


def example(seed: int = 0) -> mask_proof.Example:
    return mask_proof.Example(f"t{seed}", SYSTEM, talk(seed), [render(tokenizer(), SYSTEM, talk(seed))])


def test_the_proof_holds_and_counts_turns() -> None:
    assert mask_proof.prove_masks(QWEN3_INSTRUCT, tokenizer(), [example(seed) for seed in range(5)]) == 15


def test_the_order_of_arguments_does_not_matter() -> None:
    """A call has one text, that of sorted keys, in training and in the tokenizer's corpus, as rows keep it."""
    first, second = ({"role": "assistant", "content": "", "tool_calls": [call(0, "x", **how)]} for how in ({"b": 1, "a": {"d": 2, "c": 3}}, {"a": {"c": 3, "d": 2}, "b": 1}))  # fmt: skip
    assert turn_text(first) == turn_text(second)
    rendered = render(tokenizer(), None, [{"role": "user", "content": "hi"}, first])
    row = mask_proof.Example("t0", None, [{"role": "user", "content": "hi"}, first], [rendered])
    assert mask_proof.prove_masks(QWEN3_INSTRUCT, tokenizer(), [row]) == 1


def broken(how: str) -> mask_proof.Example:
    good = example(7)
    ids_, mask = list(good.rows[0].ids), list(good.rows[0].mask)
    first, last = mask.index(1), len(mask) - 1 - mask[::-1].index(1)
    if how == "early":
        mask[first - 1] = 1
    elif how == "late":
        mask[first] = 0
    elif how == "no end":
        mask[last] = 0
    elif how == "other token":
        ids_[first + 3] += 1
    elif how == "other prompt":
        ids_[2] += 1
    elif how == "user trained":
        mask = [1] * len(mask)
    elif how == "tail":
        ids_, mask = [*ids_, ids_[-1]], [*mask, 0]
    return replace(good, rows=[Rendered(ids_, mask)])


@pytest.mark.parametrize("how", ["early", "late", "no end", "other token", "other prompt", "user trained", "tail"])
def test_the_proof_names_the_row(how: str) -> None:
    with pytest.raises(mask_proof.MaskError, match=r"^row t7: "):
        mask_proof.prove_masks(QWEN3_INSTRUCT, tokenizer(), [example(6), broken(how)])


def test_the_proof_sees_another_template() -> None:
    other = tiny.build_tokenizer([message["content"] for message in talk(0)], 330)
    row = mask_proof.Example("t0", SYSTEM, talk(0), [render(other, SYSTEM, talk(0))])
    other.chat_template = qwen3_instruct.CHAT_TEMPLATE.replace("assistant\\n", "bot\\n")
    with pytest.raises(mask_proof.MaskError, match="row t0: the tokens do not read as the chat template"):
        mask_proof.prove_masks(QWEN3_INSTRUCT, other, [row])


# Folders.


def test_a_checkpoint_folder_holds_no_pickle_and_the_same_bytes(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = tiny.tiny_qwen3(tokenizer(), layers=2, width=32, heads=2).eval()
    saving.save(model, tokenizer(), tmp_path / "one")
    loaded, words = folders.load(tmp_path / "one")
    saving.save(loaded, words, tmp_path / "two")
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {*names, "chat_template.jinja", "chat_format.json"}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
        assert str(tmp_path).encode() not in path.read_bytes()
    assert words.chat_template == qwen3_instruct.CHAT_TEMPLATE
    given_ids = torch.tensor([QWEN3_INSTRUCT.prompt_ids(words, SYSTEM, talk(0)[:1])])
    assert torch.equal(model(given_ids).logits, loaded(given_ids).logits)


def test_the_tiny_models_format_is_what_its_tokenizer_says() -> None:
    """The format in code is the one that the prober finds, but for what it measured and the tokenizer's own pad."""
    texts = [str(message) for seed in range(20) for message in talk(seed)]
    found = find(tiny.build_tokenizer(texts, 500), count=60)
    assert replace(found, name=QWEN3_INSTRUCT.name, about={}) == QWEN3_INSTRUCT and found.by_hand


def test_a_format_of_another_template_is_refused(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    saving.save(tiny.tiny_qwen3(tokenizer(), layers=2, width=32, heads=2), tokenizer(), tmp_path)
    (tmp_path / "chat_template.jinja").write_text(qwen3_instruct.CHAT_TEMPLATE + " ")
    with pytest.raises(StageFailed, match="proven for another chat template"):
        folders.load_tokenizer(tmp_path)
    (tmp_path / "chat_format.json").unlink()
    with pytest.raises(ChatRefused, match=r"cairn chat check FOLDER --write"):
        chat_of(folders.load_tokenizer(tmp_path))


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint here \(config.json is missing\)"):
        folders.load(tmp_path)
