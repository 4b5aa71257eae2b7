"""The active params as one checked value: `params/pipeline.yaml` and overrides.

A stage's section names its method and holds, under each method's name, what this profile wants of it:

    merge:
      method: breadcrumbs
      breadcrumbs: {keep: 0.3}

A room that trains has a section `loop` beside them: the params of its training loop, which all its methods share (`sft.loop`).

A method's value comes from the section, else from the default in its `Params`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, Params, check_plain, is_file, nearest, parse_yaml, read_yaml, shown, validate
from tasks.engine import layout, methods
from tasks.engine import project as project_file
from tasks.engine.together import check_together
from tasks.road import ROAD, Road

PIPELINE = "params/pipeline.yaml"
ROLES_LOCK = "params/roles.lock"
"""What servers said of the models that play roles; see tasks/engine/roles_lock.py."""
SERVER = "openai_compatible"
"""The backend of a model behind a server."""


class Prompt(Params):
    """How much the agent's system prompt carries."""

    tools: Literal["full", "names", "none"] = Field("full", description="tool schemas, names alone, or nothing")
    policy: Literal["full", "none"] = Field("full", description="the world's policy text, or nothing")


class Role(Params):
    """Who plays a model's role."""

    backend: Literal["scripted", "local", "openai_compatible"] = Field(
        "scripted", description="a script, a checkpoint in this process, or a model behind a server"
    )
    path: str = Field("", description="folder of the checkpoint, for backend local")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the weights, for backend local")
    identity: str = Field("", description="what is behind a name: the checkpoint's bytes (local), or your word for a server's version")
    errors: dict[str, float] = Field({}, description="rate in [0, 1] of each systematic error of the script")
    base_url: str = Field("", description="where the server's API begins, such as http://127.0.0.1:8000/v1")
    model: str = Field("", description="the model's name at that server")
    key_env: str = Field("", description="name of the environment variable that holds the key (never the key)")
    key_block: str = Field("", description="or the name of a Prefect Secret block that holds it")
    price_in: float = Field(0.0, ge=0, description="money for a million tokens sent; 0 is unknown")
    price_out: float = Field(0.0, ge=0, description="money for a million tokens answered; 0 is unknown")
    max_in_flight: int = Field(32, ge=1, le=1024, description="most calls at once; fewer while the server says 429")
    timeout_seconds: float = Field(180.0, gt=0, le=3600, description="of one attempt at a call, its answer included")
    retries: int = Field(5, ge=1, le=20, description="attempts of a call before it waits for the end of its batch")
    structured: Literal["json_schema", "json_object", "prompt"] = Field(
        "json_schema", description="how a wanted form is asked for: as response_format, as JSON mode with words, in words alone"
    )
    send_seed: bool = Field(True, description="pass seeds on; false for a server that refuses them")
    temperature: float | None = Field(None, ge=0, le=2, description="instead of what the method wants; empty: as the method wants")
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="most tokens of an answer; empty: as the method wants (generator, recombiner 2048, critics 1024, judge, feedback "
        "512, agent 256, human 128, human_critic 32). A server is asked once more, with four times the room, when an answer is cut",
    )
    thinking: int = Field(0, ge=0, le=1_000_000, description="tokens added to the most of every answer, for a model that thinks first")
    content_beside_calls: Literal["null", "absent", "empty"] = Field(
        "null", description="content of a message that only calls tools: null, left out, or an empty text, which some servers want"
    )
    others: list[Role] = Field([], description="further models that play the role in turn: a committee of several judges")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the most tokens of an answer"
    )


REACHED = frozenset(
    ("path", "base_url", "key_env", "key_block", "price_in", "price_out", "max_in_flight", "timeout_seconds", "retries")
)
"""Of a role: where its model is, what it costs and how patiently it is asked. No answer depends on it, so no key of a result holds it;
everything else of a role changes answers and is in the key. (`path` is a place; a local checkpoint is named by its `identity`.)"""

ROLES = (
    "generator",
    "judge",
    "feedback",
    "recombiner",
    "human",
    "human_critic",
    "agent",
    "critic",
    "meta_critic",
    "aggregator",
)


class Budget(Params):
    """What the calls of one run to servers may use. Answers from the cache use nothing."""

    max_cost: float = Field(0.0, ge=0, description="money, in the unit of the roles' prices; 0 is no limit")
    max_tokens: int = Field(0, ge=0, description="tokens sent and answered; 0 is no limit")


class Losing(Params):
    """How much may be lost for one reason before a stage that asks models stops with that reason. It changes no result."""

    share: float = Field(0.9, gt=0, le=1, description="share of a role's calls to servers, or of a stage's conversations")
    least: int = Field(50, ge=0, le=1_000_000, description="so many must be lost for that reason; 0 never stops")
    unanswered: float = Field(
        0.01, ge=0, le=1, description="share of a role's calls that may stay without an answer after all attempts; each loses its item"
    )


class Promote(Params):
    """What happens after the decision."""

    model: str = Field("cairn-agent", min_length=1, description="name in the registry")
    approval: Literal["auto", "manual"] = Field("auto", description="move the alias at once, or wait for `cairn promote`")

    @field_validator("model")
    @classmethod
    def _a_name_that_the_registry_takes(cls, name: str) -> str:
        """MLflow makes a path of it and stores at most 256 characters; it would say so after the last stage."""
        if name.strip() != name or len(name) > 200 or not name.isprintable() or set(name) & set("/:\\") or set(name) <= {"."}:
            raise ValueError("a name of at most 200 printable characters, without / : \\ and blanks around it")
        return name


class Shared(Params):
    """The params that belong to no single stage."""

    profile: str = Field("", description="name of the profile this file was made from")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="root of every random stream")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of a training or an evaluation; part of the key")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where tensors live")
    prompt: Prompt = Prompt()
    roles: dict[str, Role] = Field({}, description="backend of each role; scripted where not named")
    budget: Budget = Budget()
    losses: Losing = Losing()
    promote: Promote = Promote()

    def players(self) -> Iterator[tuple[str, str, Role]]:
        """(name, dotted key, configuration) of everybody who plays a role: judge, then judge/2, as `Context.panel` names them."""
        for name, role in self.roles.items():
            yield name, f"roles.{name}", role
            for number, other in enumerate(role.others):
                yield f"{name}/{number + 2}", f"roles.{name}.others[{number}]", other


def asked(role: Role) -> dict[str, Any]:
    """What of a role changes its answers, defaults filled in."""
    return {**role.model_dump(mode="json", exclude={*REACHED, "others"}), "others": [asked(other) for other in role.others]}


def dig(tree: Any, dotted: str) -> Any:
    """The value at a dotted key; KeyError when there is none."""
    for part in dotted.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            raise KeyError(dotted)
        tree = tree[part]
    return tree


def overlay(tree: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of `tree` with one value replaced or added."""
    head, _, rest = dotted.partition(".")
    found = tree.get(head)
    below = found if isinstance(found, Mapping) else {}
    return {**tree, head: overlay(below, rest, value) if rest else value}


def parse_override(text: str) -> tuple[str, Any]:
    """'sft.loop.epochs=2' as (key, value); the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise BadInput(f"--set {shown(text)}: expected key=value, for example --set sft.loop.epochs=2")
    return key.strip(), parse_yaml(value, f"--set {shown(text)}", lenient=True)


@dataclass(frozen=True)
class Settings:
    """Checked params of one run. `tree` is what params/pipeline.yaml holds after overrides."""

    project: Path
    tree: Mapping[str, Any]
    source: str = PIPELINE
    reported: Mapping[str, Any] | None = None
    """what is in force of params/roles.lock, where that is not the file as it lies there: an experiment's, or before it is written"""
    road: Road = ROAD

    @cached_property
    def shared(self) -> Shared:
        """Seed, threads, roles and the rest that belongs to no stage. A key that is nobody's is told by `mistakes`."""
        own = {key: value for key, value in self.tree.items() if key in Shared.model_fields}
        shared = validate(Shared, own, self.source)
        for role in shared.roles:
            if role not in ROLES:
                raise BadInput(f"{self.source}: roles: unknown role {shown(role)}.{nearest(role, ROLES)} Known: {', '.join(ROLES)}.")
        return shared

    def room(self, stage: str) -> str:
        """The room whose methods a stage may use."""
        return self.road[stage].room

    def seed(self, stage: str) -> int:
        """The root of a stage's random streams: the `seed` of its section, else the road's. A step with another name than its room's
        mixes its name into the road's, so that two steps of one room are dealt different cards unless their sections say a seed."""
        own = self._section(stage).get("seed")
        if own is not None:
            return int(own)
        root = self.shared.seed
        return root if stage == self.room(stage) else seed_of(root, stage) % 2**31

    def method(self, stage: str) -> str:
        """The chosen method of a stage."""
        section = self._section(stage)
        where = f"{self.source}: {stage}.method"
        if "method" not in section:
            raise BadInput(f"{where} is missing. Known: {', '.join(methods.names(self.room(stage)))}.")
        return methods.check_name(self.room(stage), section["method"], where)

    def _section(self, stage: str) -> Mapping[str, Any]:
        section = self.tree.get(stage)
        if not isinstance(section, Mapping):
            raise BadInput(f"{self.source}: the section {stage!r} is missing or not a mapping. A profile is one complete file.")
        room, loop = self.room(stage), methods.loop(self.room(stage))
        extra = [name for name, has in ((methods.LOOP, loop), (methods.AGENTS, _plays(room))) if has]
        known = {"method", "seed", *methods.names(room), *extra}
        for key in section:
            if key not in known:
                if key == methods.LOOP:
                    raise BadInput(f"{self.source}: {stage}.loop: this room has no training loop. Remove the section.")
                if loop and key in loop.model_fields:
                    raise BadInput(
                        f"{self.source}: {stage}: unknown key {shown(key)}. It belongs to the training loop: {stage}.loop.{key}."
                    )
                under = f" A method's params stand under its name: {stage}.{section.get('method')}.{key}."
                own = section.get("method") in methods.names(room) and key in methods.load(room, section["method"]).Params.model_fields
                hint = under if own else nearest(key, known) or (under if len(key) < 80 else "")
                raise BadInput(f"{self.source}: {stage}: unknown key {shown(key)}.{hint} Known: {', '.join(sorted(known))}.")
        seed = section.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise BadInput(f"{self.source}: {stage}.seed = {shown(seed)}: a whole number from 0 to {2**31 - 1}, or leave it out.")
        return section

    def params(self, stage: str) -> Params:
        """The chosen method's params, complete and checked."""
        return self._params(stage, self.method(stage))

    def _params(self, stage: str, name: str) -> Params:
        module = methods.load(self.room(stage), name)
        where = f"{self.source}: {stage}.{name}"
        values = _mapping(self._section(stage).get(name), where)
        loop = methods.loop(self.room(stage))
        for key in values.keys() & (loop.model_fields.keys() if loop else set()):
            raise BadInput(
                f"{where}.{key}: a param of the training loop, which all methods of {stage} share. It stands at {stage}.loop.{key}."
            )
        checked: Params = validate(module.Params, values, where)
        if hasattr(module, "check"):
            module.check(checked)
        return checked

    def loop(self, stage: str) -> Params | None:
        """The params of the room's training loop, complete and checked; None for a room without one."""
        model = methods.loop(self.room(stage))
        if model is None:
            return None
        where = f"{self.source}: {stage}.loop"
        checked = validate(model, _mapping(self._section(stage).get(methods.LOOP), where), where)
        room = methods.interface(self.room(stage))
        if hasattr(room, "check"):
            room.check(checked)
        return checked

    def values(self, stage: str) -> dict[str, Any]:
        """Everything that the room's loop and the chosen method would use, as plain values: for people, and for the tracker."""
        loop, own = self.loop(stage), self.params(stage)
        return {**(loop.model_dump(mode="json") if loop else {}), **own.model_dump(mode="json")}

    def parts(self, stage: str) -> list[tuple[str, ModuleType, Params]]:
        """Who has a say about a stage's params: (dotted section, module, its params), the room before its method. A room has those of
        its training loop, or, without one, the method's."""
        name = self.method(stage)
        own, loop = self.params(stage), self.loop(stage)
        mine = f"{stage}.{name}"
        return [
            (f"{stage}.loop" if loop else mine, methods.interface(self.room(stage)), loop or own),
            (mine, methods.load(self.room(stage), name), own),
        ]

    def agents(self, stage: str) -> dict[str, Any] | None:
        """The way of acting of a stage that plays agents, {"method": its name, "params": complete}; None for any other stage."""
        if not _plays(self.room(stage)):
            return None
        where, section = f"{self.source}: {stage}.{methods.AGENTS}", self._section(stage).get(methods.AGENTS)
        known = methods.names(methods.AGENTS)
        if not isinstance(section, Mapping) or "method" not in section:
            ways = f"Known: {', '.join(known)}."
            raise BadInput(f"{where}.method is missing: how its agents act. Write {methods.AGENTS}: {{method: react}}. {ways}")
        name = section["method"]
        if name not in known:
            raise BadInput(f"{where}.method: no way of acting {shown(name)}.{nearest(str(name), known)} Known: {', '.join(known)}.")
        checked = {}
        for key, values in section.items():
            if key != "method" and key not in known:
                raise BadInput(f"{where}: unknown key {shown(key)}.{nearest(key, known)} Known: method, {', '.join(known)}.")
            if key != "method":
                ours = methods.load(methods.AGENTS, key).Params
                checked[key] = validate(ours, _mapping(values, f"{where}.{key}"), f"{where}.{key}")
        params = checked.get(name) or methods.load(methods.AGENTS, name).Params()
        return {"method": name, "params": params.model_dump(mode="json")}

    def check(self, whole: bool = True) -> None:
        """Look at everything once, so that a mistake ends the run before the first stage starts: also at the sections of methods that
        are not chosen now, and (whole) at what params of different stages say together."""
        if mistake := next(self.mistakes(), ""):
            raise BadInput(mistake)
        shared = self.shared
        chosen = {stage: self.params(stage) for stage in self.road.names}
        if whole:
            check_together(self, chosen)
        self._check_roles(shared)
        _check_device(shared.device, f"{self.source}: device")

    def mistakes(self) -> Iterator[str]:
        """What is wrong in a section by itself, on any machine: one message for each section, also of methods that are not chosen."""
        if why := layout.refusal(self.tree, self.source) or project_file.missing_worlds(self.project, self.tree, self.source):
            yield why
        known = {*self.road.names, *Shared.model_fields}
        for step in self.road:
            if step.name in Shared.model_fields:
                yield f"tasks/road.py: step {step.name!r}: a section of the params has this name that is no step's. Name it otherwise."
        for key in self.tree:
            if key not in known:
                yield f"{self.source}: unknown key {shown(key)}.{nearest(key, known)} Known: {', '.join(sorted(known))}."
        for section in ("", *self.road.names):
            try:
                self._check_section(section)
            except BadInput as mistake:
                yield str(mistake)

    def _check_section(self, stage: str) -> None:
        """The chosen method's params, then those of methods that are not chosen now; "": what belongs to no stage."""
        if not stage:
            _ = self.shared
            return
        chosen = self.method(stage)
        self.loop(stage)
        self.agents(stage)
        apart = {"method", "seed", methods.LOOP, methods.AGENTS, chosen}
        for name in (chosen, *sorted(self._section(stage).keys() - apart)):
            self._params(stage, name)

    def _check_roles(self, shared: Shared) -> None:
        from tasks.players import scripted

        for name, said, role in shared.players():
            where = f"{self.source}: {said}"
            given = next((key for key in ("base_url", "model", "path") if getattr(role, key)), "")
            if given and "backend" not in role.model_fields_set:
                raise BadInput(
                    f"{where}.backend is missing: beside {given} alone a script would play the role. Write backend: {SERVER} for a "
                    "model behind a server, backend: local for a checkpoint's folder."
                )
            if role.others and name != "judge":
                raise BadInput(f"{where}.others: several models in turn are for the judge's role alone, and one list deep.")
            if role.backend == "local" and not is_file(self.project / role.path / "config.json"):
                raise BadInput(f"{where}.path = {shown(role.path)}: not a checkpoint folder (no config.json in it)")
            if role.backend == "openai_compatible":
                _check_server(role, shared.budget, where)
            known = scripted.errors_of(name.partition("/")[0])
            for error, rate in role.errors.items():
                if error not in known:
                    raise BadInput(
                        f"{where}.errors: unknown error {shown(error)}.{nearest(error, known)} Known: {', '.join(known) or 'none'}."
                    )
                if not 0 <= rate <= 1:
                    raise BadInput(f"{where}.errors.{error} = {rate}: a rate is between 0 and 1")


def _mapping(values: Any, where: str) -> Mapping[str, Any]:
    """A section's params; none where nothing stands below its name. BadInput when it is anything else."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise BadInput(f"{where}: expected a mapping of params, got {shown(values)}")
    return values


def _check_device(device: str, where: str) -> None:
    """A GPU that is not there is told now, not by the first training; without importing torch, which takes seconds."""
    if device != "cuda":
        return
    import ctypes
    import importlib.util

    spec = importlib.util.find_spec("torch")
    build = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    if re.search(r"^cuda.*= None$", build, re.MULTILINE):
        raise BadInput(f"{where}: cuda, but this torch is built without CUDA. One with: `make setup LOCK=requirements-cuda.lock`.")
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except OSError:
        found = False
    if not found or not count.value:
        raise BadInput(f"{where}: cuda, but the driver shows no GPU here (see nvidia-smi, CUDA_VISIBLE_DEVICES). Or: device: cpu.")


def _check_server(role: Role, budget: Budget, where: str) -> None:
    """What a role behind a server needs. What was given for a key's name is never shown: it may be the key."""
    url = urlsplit(role.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        shown = f" = {role.base_url!r}" if "@" not in role.base_url else ""
        raise BadInput(f"{where}.base_url{shown}: where the API begins, with http:// or https://, often ending in /v1")
    if url.username or url.password or url.query or url.fragment:
        raise BadInput(f"{where}.base_url: an address alone, without user, password or anything after ? or #. A key comes by key_env.")
    if role.base_url.rstrip("/").endswith("/chat/completions"):
        raise BadInput(f"{where}.base_url = {role.base_url!r}: without /chat/completions, which is added for each call")
    if not role.model.strip():
        raise BadInput(f"{where}.model is missing: the model's name at {role.base_url}")
    if role.key_env and role.key_block:
        raise BadInput(f"{where}: key_env and key_block both say where the key is; keep one")
    if role.key_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", role.key_env):
        raise BadInput(
            f"{where}.key_env: the NAME of an environment variable (capitals, digits, _), such as OPENAI_API_KEY; never the key"
        )
    free = role.price_in or role.price_out or url.hostname in ("127.0.0.1", "localhost", "::1")
    if budget.max_cost and not free:
        raise BadInput(
            f"{where}: budget.max_cost = {budget.max_cost:g} cannot be kept while price_in and price_out are unknown. Write them, or "
            "limit tokens (budget.max_tokens) instead."
        )


def _plays(room: str) -> bool:
    """Whether a room's methods play agents, as its interface says."""
    return bool(getattr(methods.interface(room), "PLAYS", False))


def load(project: Path, profile: str = "", overrides: Sequence[tuple[str, Any]] = ()) -> Settings:
    """The active params, or a profile's, with overrides on top; unchecked until `Settings.check`."""
    path = profile_path(project, profile) if profile else project / PIPELINE
    tree = read_yaml(path)
    if not isinstance(tree, Mapping):
        raise BadInput(f"{path}: expected a mapping of params")
    if profile:
        project_file.fill(tree, project_file.read(project))
    for key, value in overrides:
        if not isinstance(key, str):
            raise BadInput(f"override {shown(key)}: a param is named by a dotted key, such as sft.loop.epochs")
        check_plain(value, f"override {shown(key)}")  # a form or a caller gives it, not only YAML
        for moved in layout.outdated(overlay({}, key, value)):
            raise BadInput(f"--set {shown(key)}: {moved}")
        tree = overlay(tree, key, value)
    return Settings(project, tree, str(path.relative_to(project)))


def profiles(project: Path) -> tuple[str, ...]:
    """Names of the complete profiles of a project."""
    return tuple(sorted(path.stem for path in (project / "params" / "profiles").glob("*.yaml")))


def profile_path(project: Path, name: str) -> Path:
    """A profile's file, or BadInput with the known names."""
    known = profiles(project)
    if name not in known:
        raise BadInput(f"no profile {shown(name)}.{nearest(str(name), known)} Known: {', '.join(known)}.")
    return project / "params" / "profiles" / f"{name}.yaml"
