"""`make smoke`: every stage on tiny inputs. Where no scripts play the roles, as in a project around an API, the stub server does.

python -m infra.smoke [OPTION of `cairn run`...]
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from infra.bench import ROOT
from infra.stub import running
from tasks.engine.settings import load
from tasks.players import stand_in

PROFILE = "smoke"
MODEL = "stub"
OF_AN_API = {"rl.loop.max_episode_tokens": 640, "evaluate.pass_k.max_episode_tokens": 640, "generate.apigen_mt.validation": 0.25}
"""Room for conversations that nobody knows before, and a share of few problems that surely gives some for validation."""


def main() -> int:
    """Run the profile; returns the command's exit status."""
    served = [name for name, role in load(ROOT, PROFILE).shared.roles.items() if role.backend == "openai_compatible"]
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", PROFILE, *sys.argv[1:]]
    if not served:
        return subprocess.run(command, check=False).returncode
    print(f"smoke: a stub plays {', '.join(served)}. It is no model: every stage runs, nothing worth promoting is learned.", flush=True)
    state = hashlib.sha256(Path(stand_in.__file__).read_bytes()).hexdigest()[:8]  # another stub answers anew, whatever was kept
    with running(plays=True, models={MODEL: {"root": f"stub-{state}"}}) as stub:
        for key, value in OF_AN_API.items():
            command += ["--set", f"{key}={value}"]
        for name in served:
            player = f'{{backend: openai_compatible, base_url: "{stub.url}", model: {MODEL}}}'
            command += ["--set", f"roles.{name}={player}"]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
