"""What a run leaves in Prefect's UI: which artifacts, with what in them, one version for each content, and what is said of those that are
missing."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from flows import artifact_texts, run_artifacts
from flows.artifact_texts import Text
from flows.markdown_text import cell
from flows.report import page
from flows.run_artifacts import SAME, SENT, sent, show
from tasks.engine.mlflow_run import MlflowRun
from tasks.road import ROAD
from tests.flows.artifacts import build

KEYS = ["pass-k", "gates", "conversations", "curves", "links"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return page(*build(tmp_path_factory.mktemp("road")))


def test_every_estimate_stands_in_the_table(shown: dict[str, Any]) -> None:
    text = artifact_texts.pass_k(shown)
    assert text and text.kind == "table" and "12 problems, 4 trials each" in text.about and "resamples problems" in text.about
    assert "simulated roles" in text.about
    rows = {row["model"]: row for row in json.loads(text.data)}
    assert [*rows][:5] == ["base", "sft", "rl_kiosk", "rl_shop", "merged"] and {"oracle", "do_nothing", "constant"} <= {*rows}
    for model, worlds in shown["summary"]["evaluate"].items():
        for world, block in worlds.items():
            for power in ("pass_1", "pass_4"):
                one = block[power]
                wanted = f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
                assert rows[model][f"{world} {power.replace('_', '^')}"] == wanted
    assert artifact_texts.pass_k({**shown, "summary": {}}) is None


def test_gates_say_their_numbers_and_thresholds(shown: dict[str, Any]) -> None:
    text = artifact_texts.gates(shown, {"alpha": 0.025, "aim": "better"})
    assert text and "| not_below_reference | yes |" in text.data and "| no_family_falls | NO | forbidden fell in shop |" in text.data
    assert "- alpha: 0.025\n- aim: better" in text.data and "**Not promoted.** a family falls: forbidden in shop" in text.about
    figures = {f"family {number}": 0.123456 for number in range(artifact_texts.FIGURES + 3)}
    many = {"headline": {**shown["headline"], "gates": [{"name": "families", "passed": False, "figures": figures}]}}
    text = artifact_texts.gates({**shown, **many}, {})
    assert text and "family 0 0.1235, " in text.data and "and 3 more in decision.json" in text.data
    assert artifact_texts.gates({**shown, "headline": {**shown["headline"], "gates": []}}, {}) is None


def test_three_won_and_three_lost_conversations_of_the_candidate(shown: dict[str, Any]) -> None:
    text = artifact_texts.conversations(shown)
    assert text and "3 won, 3 lost" in text.about
    assert re.findall(r"## (.*)", text.data) == [f"{pile}, {number} of 3" for pile in ("Won", "Lost") for number in (1, 2, 3)]
    assert "Graded: state right, outputs right" in text.data and "WRONG" in text.data and "\nWhat the oracle did: " in text.data
    assert artifact_texts.conversations({**shown, "summary": {}}) is None, "before the evaluation there is nothing of the candidate's"


def test_what_models_say_is_shown_and_does_nothing(shown: dict[str, Any]) -> None:
    talk = next(talk for talk in shown["conversations"] if talk["pile"] == "won" and talk["agent"] == "merged")
    nasty = "<script>x</script> ![x](http://evil) [y](javascript:alert(1)) `c` | *b* _i_ www.evil & &lt; \\"
    turns = [{"who": "user", "text": nasty, "calls": ()}, {"who": "assistant", "text": "a" * 1000, "calls": ()}] * 30
    text = artifact_texts.conversations({**shown, "conversations": [{**talk, "turns": turns}]})
    assert text
    assert (
        r"&lt;script>x&lt;/script> ![x]\(http:\//evil) [y]\(javascript:alert(1)) \`c\` \| \*b\* \_i\_ www\.evil &amp; &amp;lt; \\"
        in text.data
    )
    assert f"{'a' * 400} … (600 more characters)" in text.data and "- and 20 lines more" in text.data
    assert "There is none that it lost" in text.data
    assert cell("snake_case stays") == "snake_case stays"


def test_curves_are_pictures_that_need_nothing_else(shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = artifact_texts.curves(shown)
    assert text and len(text.data) < artifact_texts.PICTURES
    pictures = re.findall(r"!\[([^]]*)\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", text.data)
    assert [title for title, _ in pictures] == [one["title"] for one in shown["learning"]] and len(pictures) >= 3
    for _, data in pictures:
        drawn = base64.b64decode(data).decode()
        root = ElementTree.fromstring(drawn)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "--c-sft" in drawn and "polyline" in drawn
        assert not re.search(r"https?://(?!www\.w3\.org)", drawn)
    monkeypatch.setattr(artifact_texts, "PICTURES", len(pictures[0][1]) + 200)
    fewer = artifact_texts.curves(shown)
    assert fewer and fewer.data.count("![") == 1 and "Left out for their size" in fewer.about and pictures[1][0] in fewer.about


def run_of(folder: Path, lines: list[str], **more: Any) -> Any:
    """A run that is over, as far as its artifacts look at it."""
    shared = SimpleNamespace(promote=SimpleNamespace(model="Shop agent_v2"))
    settings = SimpleNamespace(
        shared=shared, road=ROAD, project=folder, params=lambda stage: SimpleNamespace(model_dump=lambda: {"alpha": 0.025})
    )
    stages = {name: SimpleNamespace(out=f"data/{name}") for name in ROAD.names}
    plan = SimpleNamespace(
        settings=settings, stages=stages, experiment=False, store=SimpleNamespace(view=lambda identity: folder / identity)
    )
    plan.watch = lambda stage, event, details: lines.append(details["note"])
    tracker = SimpleNamespace(lost="", mlflow=SimpleNamespace(address=lambda: "https://mlflow.example/#/experiments/1/runs/2"))
    return SimpleNamespace(**{"plan": plan, "tracker": tracker, "folder": folder / "reports", "computed": {"sft"}, **more})


DONE: Any = {name: SimpleNamespace(identity=f"{name}1234") for name in ROAD.names}


def test_prefect_keeps_a_version_for_each_content(prefect_server: str, shown: dict[str, Any], tmp_path: Path) -> None:
    """And what cannot be made or sent is told by name, and ends nothing."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.settings import PREFECT_API_URL, temporary_settings

    lines: list[str] = []

    @flow
    def road(**changed: Any) -> None:
        show(run_of(tmp_path, lines), DONE, {**shown, **changed})

    def versions(key: str) -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[f"shop-agent-v2-{key}"])))

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        road()
        road()
        road(learning=shown["learning"][:1], conversations=[{"agent": "merged"}])
        kept = {key: versions(key) for key in KEYS}
    all_keys = ", ".join(KEYS)
    assert lines == [
        f"artifacts  {all_keys}",
        f"artifacts  no new version of {all_keys}: the content is that of the last one",
        "artifacts  curves",
        "artifacts  no new version of pass-k, gates, links: the content is that of the last one",
        "artifacts  MISSING conversations: KeyError: 'pile'",
    ]
    assert {key: len(found) for key, found in kept.items()} == {key: 2 if key == "curves" else 1 for key in KEYS}
    assert {one.type for found in kept.values() for one in found} == {"table", "markdown"} and all(
        one.flow_run_id for (one, *_) in kept.values()
    )
    links = kept["links"][0].data
    assert f"| report | `{tmp_path}/reports/report.html` |" in links and f"| data of sft | `{tmp_path}/data/sft` |" in links
    assert "(https://mlflow.example/#/experiments/1/runs/2) |" in links and "`cairn trace merge1234`" in links


def test_a_server_that_is_gone_or_slow_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    text = Text("markdown", "x", "y")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        sent({"gates": text}, "agent")  # what Prefect's client loads at its first use is no patience with a server
        gone = sent({"gates": text, "links": text}, "agent")
    # one that was waited for until the end of PATIENCE would be told in other words
    assert [*gone] == ["gates", "links"] and all(how.startswith("ConnectError: ") for how in gone.values())
    monkeypatch.setattr("flows.late_sender.PATIENCE", 0.1)
    monkeypatch.setattr(run_artifacts, "_sent", lambda client, key, text: time.sleep(0.5) or SENT)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        slow = sent({"gates": text, "links": text}, "agent")
    assert slow["links"] == "Prefect's server took more than 5 s" and SAME not in slow.values()


def test_the_server_that_a_run_starts_for_itself_gets_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_artifacts, "own_url", lambda: "http://127.0.0.1:1234/api")
    monkeypatch.setattr(run_artifacts, "sent", lambda *_: pytest.fail("there is nobody to look at it"))
    show(run_of(tmp_path, []), {}, {})


def test_a_run_that_computed_nothing_leaves_its_links_as_they_are(shown: dict[str, Any], tmp_path: Path) -> None:
    made, failed = run_artifacts._made(run_of(tmp_path, [], computed=set()), DONE, shown)
    assert [*made] == KEYS[:-1] and failed == {}


def test_where_mlflow_shows_a_run(tmp_path: Path) -> None:
    """No request, and no password of the server's."""
    run = MlflowRun(tmp_path, {"uri": "https://me:secret@mlflow.example/"})
    assert run.address() == "", "MLflow was told of nothing"
    vars(run).update(parent="12ab", experiment="3")
    assert run.address() == "https://mlflow.example/#/experiments/3/runs/12ab"
    run.facts = {"uri": "sqlite:///x/mlflow.db"}
    assert run.address() == "mlflow ui --backend-store-uri sqlite:///x/mlflow.db  # run 12ab"
