"""`cairn world export`: a folder that another framework runs, or reads, with a README that says how."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.exports.elsewhere import conversation, tau2_domain
from tasks.contract.params import BadInput
from tasks.contract.problem import SPLITS, Problem

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

MAX_STEPS = 30
"""Turns of the agent in one conversation, as everywhere in Cairn."""
NEEDS = (
    "Cairn's code has to be importable: `pip install -e` of its checkout into the environment that runs this. It grades there as here."
)


@dataclass(frozen=True)
class Wish:
    """What is to be exported. allow: packages outside the project that the world comes from."""

    world: World
    problems: Sequence[Problem]
    seed: int
    allow: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of the Python module, and of the environment."""
        return f"cairn_{self.world.name}"

    @property
    def cls(self) -> str:
        """How the classes are called."""
        return "".join(part.title() for part in self.world.name.split("_"))

    def of(self, split: str) -> list[Problem]:
        """The problems of a split."""
        return [problem for problem in self.problems if problem.split == split]


@dataclass(frozen=True)
class Target:
    """A framework. made_for: package and version. run: the command, with {name} and {out}. says: what a user has to know."""

    made_for: str
    write: Callable[[Wish, Path], Mapping[str, int]]
    run: str
    says: tuple[str, ...] = ()


@dataclass
class Written:
    """What was written. lost: what could not be said there -> problems that it is about."""

    files: list[str]
    lost: Mapping[str, int] = field(default_factory=Counter)


def export(wish: Wish, to: str, out: Path) -> Written:
    """Write the folder. Raises BadInput, with nothing written: it is not empty, there is no problem, a world cannot go there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: exists and is not an empty folder. Name another one.")
    if not wish.problems:
        raise BadInput(f"world {wish.world.name}: no problem to export.")
    if not wish.world.copies:
        raise BadInput(
            f"world {wish.world.name}: its state cannot be copied (a live service), so rollouts beside each other cannot have it."
        )
    target, there = TARGETS[to], out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        lost = target.write(wish, out)
        (out / "README.md").write_text(_readme(wish, to, lost), encoding="utf-8")
    except BaseException:
        shutil.rmtree(out)
        if there:
            out.mkdir()
        raise
    return Written(sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()), lost)


def _readme(wish: Wish, to: str, lost: Mapping[str, int]) -> str:
    target = TARGETS[to]
    counts = ", ".join(f"{len(wish.of(split))} of {split}" for split in SPLITS if wish.of(split))
    said = [line.format(name=wish.name) for line in target.says]
    left = [f"{count} of {len(wish.problems)} problems: {reason}" for reason, count in lost.items()]
    return (
        f"# {wish.world.name} for {to}\n\nWritten by `cairn world export --to {to}` for {target.made_for}: {counts} problems, "
        f"seed {wish.seed}.\n\n    {target.run.format(name=wish.name)}\n\n" + "".join(f"- {line}\n" for line in [*said, *left])
    )


def _runnable(wish: Wish, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    conversation.write(folder, wish.world, wish.problems, wish.seed, MAX_STEPS, wish.allow)


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _verifiers(wish: Wish, out: Path) -> Mapping[str, int]:
    _runnable(wish, out / wish.name)
    (out / wish.name / "__init__.py").write_text(
        f'"""The world {wish.world.name} for verifiers."""\n\nfrom pathlib import Path\n\n'
        "from flows.exports.elsewhere.verifiers_environment import WorldEnv, WorldTaskset\n\n\n"
        f'class {wish.cls}Taskset(WorldTaskset):\n    """Its problems."""\n\n    FOLDER = str(Path(__file__).parent)\n\n\n'
        f'class {wish.cls}Env(WorldEnv):\n    """An agent and a simulated user."""\n\n\n'
        f'__all__ = ["{wish.cls}Env", "{wish.cls}Taskset"]\n',
        encoding="utf-8",
    )
    (out / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n\n[project]\nname = "{wish.name}"\n'
        'version = "0.1.0"\nrequires-python = ">=3.11"\ndependencies = ["verifiers==0.4.0"]\n\n'
        f'[tool.setuptools]\npackages = ["{wish.name}"]\n\n[tool.setuptools.package-data]\n{wish.name} = ["*.json*", "world/*"]\n',
        encoding="utf-8",
    )
    return {}


def _trl(wish: Wish, out: Path) -> Mapping[str, int]:
    from flows.exports.trl_environment import environment_factory

    environment_factory(wish.world)  # which says what TRL cannot show
    _runnable(wish, out)
    (out / "environment.py").write_text(
        f'"""The world {wish.world.name} for TRL: three arguments of `GRPOTrainer`."""\n\n'
        "from pathlib import Path\n\nfrom flows.exports import trl_environment\n"
        "from flows.exports.elsewhere.conversation import read\n\n"
        "_exported = read(str(Path(__file__).resolve().parent))\n"
        "train_dataset = trl_environment.dataset(_exported.world, _exported.problems.values(), _exported.seed)\n"
        "environment_factory = trl_environment.environment_factory(_exported.world)\nreward_funcs = trl_environment.reward\n",
        encoding="utf-8",
    )
    return {}


def _nemo_gym(wish: Wish, out: Path) -> Mapping[str, int]:
    import yaml

    _runnable(wish, out)
    (out / "app.py").write_text(
        f'"""The world {wish.world.name} as a resources server of NeMo Gym."""\n\nfrom pathlib import Path\n\n'
        "from flows.exports.elsewhere.nemo_gym_environment import WorldServer\n\n\n"
        f'class {wish.cls}Server(WorldServer):\n    """Sessions are conversations."""\n\n'
        '    FOLDER = str(Path(__file__).resolve().parent)\n\n\nif __name__ == "__main__":\n'
        f"    {wish.cls}Server.run_webserver()\n",
        encoding="utf-8",
    )
    tools = [{"type": "function", "strict": False, **schema["function"]} for schema in wish.world.schemas()]
    said = [{"role": "system", "content": conversation.agent_system(wish.world)}]
    agent = {"type": "responses_api_agents", "name": f"{wish.name}_agent"}
    (out / "data").mkdir()
    (out / "configs").mkdir()
    sets = []
    for split in SPLITS:
        rows = [
            {"responses_create_params": {"input": said, "tools": tools}, "problem": problem.problem_id, "agent_ref": agent}
            for problem in wish.of(split)
        ]
        _lines(out / "data" / f"{split}.jsonl", rows)
        if rows:
            kind = {"train": "train", "validation": "validation"}.get(split, "example")
            sets.append({"name": split, "type": kind, "jsonl_fpath": f"resources_servers/{wish.name}/data/{split}.jsonl"})
    server = {"entrypoint": "app.py", "domain": "agent", "description": f"Cairn's world {wish.world.name}", "verified": False}
    seat = {
        "entrypoint": "app.py",
        "resources_server": {"type": "resources_servers", "name": wish.name},
        "model_server": {"type": "responses_api_models", "name": "policy_model"},
        "max_steps": MAX_STEPS + 1,
        "datasets": sets,
    }
    config = {
        wish.name: {"resources_servers": {wish.name: server}},
        agent["name"]: {"responses_api_agents": {"gymnasium_agent": seat}},
    }
    (out / "configs" / f"{wish.name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (out / "requirements.txt").write_text("nemo-gym==0.4.0\n", encoding="utf-8")
    return {}


def _ms_swift(wish: Wish, out: Path) -> Mapping[str, int]:
    _runnable(wish, out)
    (out / "plugin.py").write_text(
        f'"""The world {wish.world.name} as an environment of ms-swift."""\n\nfrom pathlib import Path\n\n'
        "from swift.rollout.gym_env import envs\n\n"
        "from flows.exports.elsewhere.ms_swift_environment import WorldEnv\n\n\n"
        f'class {wish.cls}Env(WorldEnv):\n    """One conversation."""\n\n    FOLDER = str(Path(__file__).resolve().parent)\n\n\n'
        f'envs["{wish.name}"] = {wish.cls}Env\n',
        encoding="utf-8",
    )
    tools, system = json.dumps(wish.world.schemas(), ensure_ascii=False), conversation.agent_system(wish.world)
    for split in SPLITS:
        rows = [
            {
                "messages": [{"role": "system", "content": system}, {"role": "user", "content": problem.instruction}],
                "tools": tools,
                "env_config": {"name": wish.name, "problem": problem.problem_id},
            }
            for problem in wish.of(split)
        ]
        _lines(out / f"{split}.jsonl", rows)
    return {}


def _tau2(wish: Wish, out: Path) -> Mapping[str, int]:
    return tau2_domain.write_domain(out, wish.world, wish.problems)


TARGETS = {
    "verifiers": Target(
        "verifiers 0.4.0",
        _verifiers,
        "pip install -e . && vf-eval {name} -n 20 --model MODEL --client.base-url URL",
        (
            NEEDS,
            "`--env.taskset.split test` takes one split. The user is the world's script; `--env.user-is-a-model true` "
            "(and any world that has no script) puts the model of the seat `--env.user.*` there.",
        ),
    ),
    "trl": Target(
        "trl 1.16.0",
        _trl,
        'python -c "from environment import train_dataset, environment_factory, reward_funcs"   # for GRPOTrainer',
        (NEEDS, "Nobody answers the agent there: the user's one line says everything, and `policy` is not counted."),
    ),
    "nemo_gym": Target(
        "nemo-gym 0.4.0",
        _nemo_gym,
        'ng_run "+config_paths=[resources_servers/{name}/configs/{name}.yaml,responses_api_models/vllm_model/configs/vllm_model.yaml]"',
        (
            NEEDS,
            "Copy this folder to `resources_servers/{name}` of NeMo Gym. It is played by `gymnasium_agent`; the system message and the "
            "tools are in the rows of data/, the user's lines are the server's.",
        ),
    ),
    "ms_swift": Target(
        "ms-swift 4.6.0",
        _ms_swift,
        "swift rlhf --rlhf_type grpo --dataset train.jsonl --external_plugins plugin.py --use_vllm true --vllm_mode colocate "
        "--multi_turn_scheduler gym_scheduler --use_gym_env true --gym_env {name} --agent_template hermes --model MODEL",
        (
            NEEDS,
            "The user's line in the rows is replaced by that of the environment. For another agent template, name it in `env_config`.",
        ),
    ),
    "tau2": Target(
        "tau2-bench's tasks.json, split_tasks.json, db.json and policy.md",
        _tau2,
        "cp *.json policy.md $TAU2/data/tau2/domains/{name}/",
        (
            "Data alone: the tools of tools.json have to be written as methods of a toolkit over db.json, and the "
            "domain to be registered.",
        ),
    ),
}
