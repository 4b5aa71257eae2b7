"""What a flow run is called, with Prefect's own engine on a server in a process of its own."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.names import generate_slug

from flows.flow_run_name import _stars, named_by_a_person, of_the_road, unless_named


def test_a_name_that_prefect_made_up_is_told_from_a_persons() -> None:
    deployed = {"flow_id": uuid4(), "deployment_id": uuid4()}
    for _ in range(500):
        assert not named_by_a_person(FlowRun(name=generate_slug(2), **deployed))
    assert len(_stars()) > 1000, "the words of which the form of Prefect's UI makes names are elsewhere in its files now"
    for name in ("pi768-indi-p", "alpha-canis-majoris", "omega2-newton-void", "eta-newton"):
        assert not named_by_a_person(FlowRun(name=name, **deployed)), "the form proposed it"
    for name in ("my-run", "try 3", "monday", "seed-2", "quick-fox-again", "alpha-test", "beta2-shop", "pi-indi p", "indi-p"):
        assert named_by_a_person(FlowRun(name=name, **deployed))
    assert not named_by_a_person(FlowRun(name="monday", auto_scheduled=True, **deployed)), "nobody named what a schedule made"
    assert not named_by_a_person(FlowRun(name="monday", flow_id=uuid4())), "`cairn run` lets nobody name a flow run"


def test_a_run_is_named_by_its_profile_and_what_differs(prefect_server: str) -> None:
    from prefect import get_client
    from prefect.flow_engine import run_flow

    @flow(name="named", flow_run_name=unless_named(of_the_road), validate_parameters=False)
    def named(profile: str = "", overrides: Any = (), more_overrides: str = "") -> None:
        pass

    with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as api:

        def name_of(parameters: dict[str, Any], given: str | None = None) -> str:
            run = api.create_flow_run(named, parameters=parameters, name=given)
            run_flow(named, flow_run=run, parameters=parameters)
            return api.read_flow_run(run.id).name

        changed = {"profile": "smoke", "overrides": {"seed": 1}, "more_overrides": "sft.loop.epochs = 2"}
        assert name_of(changed) == "smoke: seed=1, sft.loop.epochs=2"
        assert name_of({"profile": "smoke", "more_overrides": "seed ="}) == "smoke", "it ends for its mistake, under its profile's name"
        flow_id = api.create_flow(named)
        deployment = api.create_deployment(flow_id=flow_id, name="named")
        run = api.create_flow_run_from_deployment(deployment, name="for monday's talk", parameters=changed)
        run_flow(named, flow_run=run, parameters=changed)
        assert api.read_flow_run(run.id).name == "for monday's talk"
