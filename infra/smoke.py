"""`make smoke`: every stage on tiny inputs. Where no scripts play the roles, as in a project around an API, the stub server does.

python -m infra.smoke [OPTION of `cairn run`...]
"""

from __future__ import annotations

import subprocess
import sys

from infra.bench import ROOT
from infra.stub import in_roles, of_roles, running, served
from tasks.engine.settings import load

PROFILE = "smoke"
OF_AN_API = {"rl.loop.max_episode_tokens": 640, "evaluate.pass_k.max_episode_tokens": 640, "generate.apigen_mt.validation": 0.25}
"""Room for conversations that nobody knows before, and a share of few problems that surely gives some for validation."""


def main() -> int:
    """Run the profile; returns the command's exit status."""
    names = served(load(ROOT, PROFILE))
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", PROFILE, *sys.argv[1:]]
    if not names:
        return _done(subprocess.run(command, check=False).returncode, "Steps this small teach little")
    print(f"smoke: a stub plays {', '.join(names)}. It is no model: every stage runs, nothing worth promoting is learned.", flush=True)
    with running(**of_roles()) as stub:
        for key, value in OF_AN_API.items():
            command += ["--set", f"{key}={value}"]
        return _done(subprocess.run([*command, *in_roles(names, stub.url)], check=False).returncode, "A stub teaches nothing")


def _done(status: int, why: str) -> int:
    """Say how to read the end of a whole run that went well: a decision that refuses looks like a failure, and is none here."""
    if status == 0 and not sys.argv[1:]:
        print(
            f"smoke: passed, every stage ran. {why}: that the decision refuses, or what pass^1 is, says nothing of your worlds. It was "
            "an experiment: data/ and dvc.lock are as they were, its results are named by the table above (cairn trace ARTIFACT, "
            "cairn export generate OUT --from artifact:ARTIFACT)."
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
