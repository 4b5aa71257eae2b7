"""The report: complete on a whole road, plain on half of one, harmless with hostile text, the same bytes twice, and quick.

The artifacts are real ones in small: played and graded in the shop of `tests.flows.shop`, measured by the evaluate room's own
tables. By hand: user 0's problem in it is to cancel W1000, so the state that should have been reads
`- orders W1000 status: "pending"` / `+ orders W1000 status: "cancelled"`.
"""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows import model_names as model_names
from flows.model_names import place
from flows.report import charts, page, reading, render, rooms, talks
from flows.summary_text import summary_lines
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.merge.core.tally import write_report
from tasks.road import ROAD
from tests.flows.artifacts import NASTY, build

Made = tuple[dict[str, Any], dict[str, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return build(tmp_path_factory.mktemp("road"))


def shown(target: Path, summary: dict[str, Any], folders: dict[str, Path]) -> str:
    render(target, summary, folders)
    return target.read_text(encoding="utf-8")


class Tags(html.parser.HTMLParser):
    """Every element with its attributes; fails on what is closed but not open."""

    VOID = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_whole_road(made: Made, tmp_path: Path) -> None:
    text = shown(tmp_path / "report.html", *made)
    tags = Tags(text)
    for section in ("ladder", "families", "learning", "data", "merge", "stages", "talks"):
        assert f'<section id="{section}">' in text and f'href="#{section}"' in text
    assert "Not promoted" in text and "a family falls: forbidden in shop" in text
    assert "n = 12 problems, 4 trials each" in text and "resamples problems" in text and "Simulated roles" in text
    assert all(stage in text for stage in ROAD.names)
    assert sum(name == "details" and attrs.get("class") == "talk" for name, attrs in tags.found) == talks.MOST
    assert sum(name == "svg" and attrs.get("role") == "img" for name, attrs in tags.found) >= 15


def test_every_estimate_is_on_the_page_with_its_size(made: Made, tmp_path: Path) -> None:
    text = shown(tmp_path / "report.html", *made)
    for model, worlds in made[0]["evaluate"].items():
        for world, block in worlds.items():
            one = block["pass_1"]
            said = f"{model} in {world}: pass^1 {one['mean']:.2f}, {one['low']:.2f} to {one['high']:.2f}"
            assert f"{said} (95 % interval, resamples problems; n = 12, 4 trials)" in text
            for family in block["families"]:
                assert f"{model}, {family}: pass^1" in text
    assert "constant, do-nothing 0.00" in text and "oracle 1.00" in text


def test_same_bytes_twice(made: Made, tmp_path: Path) -> None:
    assert shown(tmp_path / "a.html", *made) == shown(tmp_path / "b.html", *made)


def test_loads_nothing_and_runs_nothing(made: Made, tmp_path: Path) -> None:
    tags = Tags(shown(tmp_path / "report.html", *made)).found
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {name for name, _ in tags}
    for name, attrs in tags:
        assert not any(key.startswith("on") or key in ("src", "srcset", "xlink:href") for key in attrs), (name, attrs)
        assert attrs.get("http-equiv", "Content-Security-Policy") == "Content-Security-Policy", "no redirect"
        assert "href" not in attrs or re.match(r"#|https://arxiv\.org/", attrs["href"] or ""), attrs


def test_model_text_is_escaped(made: Made, tmp_path: Path) -> None:
    text = shown(tmp_path / "report.html", *made)
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quotes&#34;" in text
    assert "\x07" not in text and "\u202e" not in text and "[U+202E]" in text
    assert talks.clean(NASTY * 100).endswith("more characters)")


def test_hostile_names_in_summary_are_escaped(made: Made, tmp_path: Path) -> None:
    summary = {**made[0], "profile": "<b>x", "run": '"><em>', "evaluate": {"a<b": made[0]["evaluate"]["sft"]}, "paired": {}}
    summary["promotion"] = {"decision": "<u>", "reason": "<s>", "version": None, "alias": None}
    text = shown(tmp_path / "report.html", summary, made[1])
    Tags(text)
    assert not re.search(r"<(em|u|s)>|a<b|<b>x", text)


@pytest.mark.parametrize("last", ROAD.names)
def test_half_a_road(made: Made, tmp_path: Path, last: str) -> None:
    summary, folders = made
    there = ROAD.names[: ROAD.names.index(last) + 1]
    half = {key: summary[key] for key in ("profile", "run", "seconds")}
    half |= {"stages": {stage: summary["stages"][stage] for stage in there}, "promotion": {"decision": None, "reason": None}}
    if "evaluate" in there:
        half |= {key: summary[key] for key in ("evaluate", "overall", "baselines", "paired")}
    text = shown(tmp_path / "report.html", half, {stage: folders[stage] for stage in there})
    Tags(text)
    assert ("No decision" in text) == (last != "decide")
    for section, stage in (
        ("ladder", "evaluate"),
        ("learning", "base"),
        ("data", "generate"),
        ("merge", "merge"),
        ("talks", "generate"),
    ):
        assert (f'<section id="{section}">' in text) == (stage in there)


def test_worlds_that_no_training_saw_stand_apart(made: Made, tmp_path: Path) -> None:
    """Cards of their own behind the others, marked; the head of the page and its tables are what they are without them."""
    summary, folders = made
    part = {key: summary[key] for key in ("evaluate", "baselines", "paired")}
    apart = json.loads(json.dumps(part).replace('"shop": {', '"library": {').replace('"kiosk": {', '"museum": {'))
    plain, more = page(summary, folders), page({**summary, "unseen": apart}, folders)
    for section in ("ladders", "gains", "families"):
        cards = [(card["world"], card["unseen"]) for card in more[section]]
        assert cards == [("kiosk", False), ("shop", False), ("library", True), ("museum", True)]
        assert more[section][:2] == plain[section]
    assert more["headline"] == plain["headline"]
    text = shown(tmp_path / "report.html", {**summary, "unseen": apart}, folders)
    assert text.count("library, unseen: no training saw this world") == 3 and "kiosk, unseen: " not in text
    stages = {"stages": {}, "promotion": {"decision": None}}
    lines = list(summary_lines({**stages, "evaluate": summary["evaluate"], "unseen": apart}, tmp_path))
    assert lines[1].split() == ["pass^1", "kiosk", "shop", "library", "(unseen)", "museum", "(unseen)"]
    assert list(summary_lines({**stages, "evaluate": summary["evaluate"]}, tmp_path))[1].split() == ["pass^1", "kiosk", "shop"]


def test_problems_that_doing_nothing_solves_stand_apart(made: Made, tmp_path: Path) -> None:
    """By world with their number, in the page and in the printed lines; no other figure is another one."""
    summary, folders = made
    idle = {"evaluate": {model: {"shop": worlds["shop"]} for model, worlds in summary["evaluate"].items()}}
    plain, more = page(summary, folders), page({**summary, "passive": idle}, folders)
    (shop,) = more["passive"]
    figures = summary["evaluate"][plain["models"][0]]["shop"]["pass_1"]
    assert (shop["world"], shop["n"]) == ("shop", figures["n"]) and shop["cells"][0]["mean"] == figures["mean"]
    assert [cell["model"] for cell in shop["cells"]] == plain["models"] and not plain["passive"]
    assert {**more, "passive": [], "summary": summary} == {**plain, "summary": summary}
    sentence = f"shop: doing nothing solves {figures['n']:,} of the test problems that were given"
    assert sentence in " ".join(shown(tmp_path / "report.html", {**summary, "passive": idle}, folders).split())
    assert sentence not in " ".join(shown(tmp_path / "report.html", summary, folders).split())
    stages = {"stages": {}, "promotion": {"decision": None}, "evaluate": summary["evaluate"]}
    lines = list(summary_lines({**stages, "passive": idle}, tmp_path))
    (line,) = [line for line in lines if line.startswith(f"shop, {figures['n']} passive problems, apart and in no gate")]
    assert f"{plain['models'][0]} {figures['mean']:.2f} [" in line and "passive" not in "".join(summary_lines(stages, tmp_path))


def test_nothing_at_all(tmp_path: Path) -> None:
    text = shown(tmp_path / "new" / "report.html", {"profile": "p", "run": "r", "seconds": 0.1, "stages": {}}, {})
    assert "No decision" in text and "<section" not in text


def test_states_that_should_have_been(made: Made) -> None:
    found = talks.conversations(made[1], "merged")
    assert len(found) == talks.MOST
    piles = [talk["pile"] for talk in found]
    assert piles.count("refused by the filter") == 2 and {"won", "lost", "request to decline"} <= set(piles)
    assert all(talk["reason"] == "policy" and talk["reward"] for talk in found if talk["pile"] == "refused by the filter")
    for talk in found:
        assert (talk["expected_diff"] == talk["final_diff"]) == bool(talk["state"])
        assert talk["by"] == ("the blueprint" if talk["reason"] else "the oracle")
        order = talk["expected_calls"][0]["arguments"].removeprefix('order_id="').rstrip('"')
        if talk["family"] == "one_write":
            assert talk["expected_diff"] == f'- orders {order} status: "pending"\n+ orders {order} status: "cancelled"'


def test_a_world_whose_code_changed_is_named_by_its_hashes(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "worlds"
    for world in ("shop", "kiosk"):
        (folder / world).mkdir(parents=True)
        for file in (made[1]["worlds"] / world).iterdir():
            text = file.read_text()
            (folder / world / file.name).write_text(re.sub(r'"code": "\w+"', '"code": "00"', text))
    found = talks.conversations({**made[1], "worlds": folder}, "merged")
    assert all(talk["expected_diff"] is None and talk["hashes"][0] for talk in found)
    assert "known by its hash alone" in shown(tmp_path / "report.html", made[0], {**made[1], "worlds": folder})


def test_no_problem_twice_and_median_length_first(made: Made) -> None:
    found = [talk for talk in talks.conversations(made[1], "merged") if not talk["reason"]]
    assert len({talk["problem_id"] for talk in found}) == len(found)
    lengths = [1, 9, 3, 3, 2]
    pile = [
        {"family": "f", "world": "w", "reward": 1, "n_tool_calls": n, "problem_id": f"p{i}", "trial": 0, "traj_id": str(i)}
        for i, n in enumerate(lengths)
    ]
    assert [row["problem_id"] for row in talks._in_turn(pile)] == ["p2", "p3", "p4", "p0", "p1"]


def test_foreign_parquet_is_refused_by_name(made: Made, tmp_path: Path) -> None:
    tables.write_rows(tmp_path / "trajectories.parquet", schemas.PREFERENCE, [])
    with pytest.raises(BadInput, match=r"trajectories.parquet: column '\w+' is missing"):
        render(tmp_path / "report.html", made[0], {"generate": tmp_path})


def test_page_is_made_of_what_the_rooms_counted(made: Made) -> None:
    found = page(*made)
    assert found["waterfall"][0]["all"] == 48 and found["waterfall"][0]["kept"] == sum(n for _, n in found["waterfall"][0]["splits"])
    assert found["blueprints"][0]["accepted"] == 24 and found["blueprints"][0]["attempts"] == 48
    policy = next(entry for entry in found["blueprints"][0]["reasons"] if entry["status"] == "policy")
    assert policy["lines"] == [("policy \u2026: order \u2026 is delivered", 8)]
    assert len(found["merge"][0]["maps"]) == 6 and len(found["merge"][0]["lines"]) == 32
    assert found["cost"]["played"] == {"generated": 48, "evaluated": 12 * 2 * (5 * 4 + 3 + 2)}


def test_the_merge_is_told_by_layer(tmp_path: Path) -> None:
    """Layer 0 of `a` has two tensors: 10 + 30 entries, of which 4 + 6 are kept and 1 + 1 trimmed; norms 3 and 4 make 5, and of them
    0 and 3 are left, 3. With the last norm (12 before, 4 after) it is 13 before and 5 after. `b` moved nothing."""
    about = {"weight": 1.0, "base_l2": 1.0, "mean_pairwise_cos": None, "sign_conflict_frac": 0.25}
    sizes = {"model.layers.0.q": (10, 4, 1, 3.0, 0.0), "model.layers.0.v": (30, 6, 1, 4.0, 3.0), "model.norm": (8, 8, None, 12.0, 4.0)}
    keys = ("numel", "kept_n", "trimmed_n", "delta_l2", "masked_l2")
    table = [
        {"tensor": name, "model": model, "changed_n": 1, **about, **dict(zip(keys, numbers, strict=True)), **still}
        for name, numbers in sizes.items()
        for model, still in (("a", {}), ("b", {"kept_n": 0, "trimmed_n": 0, "delta_l2": 0.0, "masked_l2": 0.0}))
    ]
    write_report(tmp_path / "report.parquet", table)
    found = rooms.merge_map({"merge": tmp_path}, "merge", {"a": "m-0"})
    assert [one["title"] for one in found["maps"]] == [
        *("how far a moved", "how far b moved", "where they disagree in sign", "how alike their changes are"),
        *("what is left of them, layer by layer", "norms before and after"),
    ]
    left, norms = (str(one["chart"]) for one in found["maps"][-2:])
    assert (
        "layer 0, a: numel 40, kept_n 10, trimmed_n 2, delta_l2 5, masked_l2 3: 25 % of the entries, 60 % of the norm, 5 % trimmed"
        in left
    )
    assert (
        "outside the layers, a: numel 8, kept_n 8, trimmed_n 0, delta_l2 12, masked_l2 4: 100 % of the entries, 33.3 % of the norm"
        in left
    )
    assert "layer 0, b: numel 40, kept_n 0, trimmed_n 0, delta_l2 0, masked_l2 0: 0 % of the entries" in left
    assert left.count("--v:100") == 2 and left.count("--v:60") == 1, "all is kept outside the layers, most is trimmed in layer 0"
    assert "a: norm 5 of 13" in norms and "b: norm 0 of 0" in norms and "mark m-0" in norms
    assert found["trimmed"] == 0.05 and found["most"] == f"{12 / 8**0.5:.3g}"
    assert [line["kept"] for line in found["lines"]] == [0.4, 0.0, 0.2, 0.0, 1.0, 0.0]


def test_one_expert_and_a_method_without_trimming_have_smaller_maps(tmp_path: Path) -> None:
    line = {"tensor": "w", "model": "a", "numel": 4, "kept_n": 4, "delta_l2": 1.0, "masked_l2": 2.0, "sign_conflict_frac": 0.0}
    write_report(tmp_path / "report.parquet", [line])
    found = rooms.merge_map({"merge": tmp_path}, "merge", {})
    assert [one["title"] for one in found["maps"]] == [
        "how far a moved",
        "what is left of them, layer by layer",
        "norms before and after",
    ]
    assert "trimmed" not in re.sub("<title>.*?</title>", "", str(found["maps"][1]["chart"])) and found["trimmed"] == 0
    assert "a: norm 2 of 1" in str(found["maps"][2]["chart"]), "a method may stretch what it keeps"
    write_report(tmp_path / "report.parquet", [])
    assert rooms.merge_map({"merge": tmp_path}, "merge", {}) == {}


def test_without_four_trials_there_is_no_diamond(tmp_path: Path) -> None:
    summary, folders = build(tmp_path, users=4, trials=1, steps=3)
    text = shown(tmp_path / "report.html", summary, folders)
    assert 'class="diamond"' not in text and "of four trials" not in text


def test_two_thousand_trials_in_a_second_and_no_heavy_import(tmp_path: Path) -> None:
    summary, folders = build(tmp_path, users=50)
    start = time.process_time()
    render(tmp_path / "report.html", summary, folders)
    assert time.process_time() - start < 1.0
    command = "import sys, flows.report; print([n for n in ('torch', 'matplotlib', 'prefect', 'mlflow', 'pandas') if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


# --- charts ------------------------------------------------------------------------------------------------------------


def test_scale_and_ticks_by_hand() -> None:
    """0.25 of the way from 100 to 300 is 150; values outside stay at the ends; a flat axis does not divide by zero."""
    scale = charts.Scale(0.0, 1.0, 100.0, 300.0)
    assert [scale(value) for value in (0.25, -1.0, 2.0)] == [150.0, 100.0, 300.0]
    assert charts.Scale(3.0, 3.0, 0.0, 10.0)(3.0) == 0.0
    assert charts.ticks(-0.2, 0.6) == [-0.2, 0.0, 0.2, 0.4, 0.6] and charts.ticks(5, 5) == [5]


def test_thinning_keeps_the_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(1000)]
    fewer = charts.thinned(points, 240)
    assert len(fewer) == 200
    assert sum(y for _, y in fewer) / len(fewer) == pytest.approx(sum(y for _, y in points) / 1000)
    assert charts.thinned(points[:5]) == points[:5] and charts.thinned([]) == []
    assert charts.smooth(points[:3], 1) == points[:3], "a window of one is no smoothing"


def test_words_of_references_do_not_collide() -> None:
    scale = charts.Scale(0.0, 1.0, 80.0, 280.0)
    heads = charts._heads({"do-nothing": 0.0, "constant": 0.05, "oracle": 1.0}, scale)
    assert [level for *_, level in heads] == [0, 1, 0]


def test_flat_and_negative_curves_are_drawn() -> None:
    for values in ([0.0, 0.0], [-1.0, 2.0], [5.0]):
        text = charts.curves([charts.Curve("x", "m-sft", list(enumerate(values)))], "step", "y")
        assert "nan" not in text and "inf" not in text and text.startswith("<svg")


def test_colours_and_order_are_the_same_everywhere() -> None:
    models = ["merged", "rl_b", "base", "rl_a", "sft", "sft_unfiltered"]
    assert sorted(models, key=place) == ["base", "sft_unfiltered", "sft", "rl_a", "rl_b", "merged"]
    assert reading.colours(models)["rl_b"] == reading.colours(["rl_a", "rl_b"])["rl_b"] == "m-1"


def test_docstrings() -> None:
    import doctest

    for module in (charts, reading, model_names, talks):
        assert doctest.testmod(module).failed == 0


def test_the_table_ends_with_a_path_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from flows.summary_text import print_summary

    summary = tmp_path / "reports/summary.json"
    summary.parent.mkdir()
    summary.write_text('{"stages": {}, "promotion": {"decision": ""}}')
    for folder, shown in ((tmp_path, "reports/report.html"), (Path("/"), str(summary.with_name("report.html"))[1:])):
        monkeypatch.chdir(folder)
        print_summary(summary)
        assert capsys.readouterr().out.endswith(f"report: {shown}\n")


def test_a_contender_stands_beside_the_models_and_is_never_the_candidate(made: Made, tmp_path: Path) -> None:
    summary, folders = made
    sft = summary["evaluate"]["sft"]
    gap = {world: {"pass_1": {"mean": 0.1, "low": 0.0, "high": 0.2, "n": 12, "trials": 4, "resamples": "problems"}} for world in sft}
    more = {
        **summary,
        "evaluate": {**summary["evaluate"], "contender": sft},
        "paired": {**summary["paired"], f"{summary['gate']['candidate']}-contender": gap},
        "roles": {**(summary.get("roles") or {}), "contender": {"backend": "openai_compatible", "model": "big-one", "errors": {}}},
    }
    text = shown(tmp_path / "report.html", more, folders)
    assert "<code>big-one</code>, and nothing promotes it" in text and f"{summary['gate']['candidate']} \u2212 contender" in text
    assert page({**more, "gate": {}}, folders)["headline"]["candidate"] == "merged" and page(more, folders)["models"][-1] == "contender"
