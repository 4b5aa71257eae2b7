"""The page in which `dvc plots show` draws, with its libraries inside: .dvc/plots.html, made of packages from npm.

DVC's own page takes them from a server elsewhere, and is empty without a network. The versions are the last of those that DVC's
templates are written for (Vega-Lite 5). Committed, so that nobody needs npm; `make plots-page` makes it anew.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from flows.exit_codes import guarded
from infra.bench import ROOT

FILE = ROOT / ".dvc" / "plots.html"
PACKAGES = {"vega": "5.33.1", "vega-lite": "5.23.0", "vega-embed": "6.29.0"}
"""Name -> version, each before those that need it."""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>Plots</title>
<!-- Written by `make plots-page`. It holds %s, each under this licence (BSD-3-Clause):

%s
-->
%s
<style>body { font-family: sans-serif; margin: 2em; } table { border-spacing: 15px; }</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""
"""DVC puts its plots where {plot_divs} stands. What it would put at {scripts} are addresses: so that is not here."""


def fetch(name: str, version: str, scratch: Path) -> tuple[str, str]:
    """(the script for browsers, its licence or "") of a package. SystemExit when npm fails, or the script would end its own element."""
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{name}@{version}"], cwd=scratch, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(f"npm pack {name}@{version} failed: {done.stderr.strip()[-300:]}")
    with tarfile.open(scratch / f"{name}-{version}.tgz") as packed:
        packed.extractall(scratch / name, filter="data")
    package = scratch / name / "package"
    script = (package / "build" / f"{name}.min.js").read_text(encoding="utf-8")
    for mark in ("</script", "{plot_divs}", "{scripts}", "{refresh_tag}"):
        if mark in script:
            raise SystemExit(f"{name}@{version} holds {mark!r}, which stands for something else in a page of DVC's")
    licence = package / "LICENSE"  # the vega package names its licence without its text, which is that of the other two
    return script, licence.read_text(encoding="utf-8") if licence.exists() else ""


def main() -> int:
    """Write the page anew."""
    with tempfile.TemporaryDirectory() as scratch:
        found = [fetch(name, version, Path(scratch)) for name, version in PACKAGES.items()]
    held = ", ".join(f"{name} {version}" for name, version in PACKAGES.items())
    scripts = "\n".join(f"<script>\n{script.strip()}\n</script>" for script, _ in found)
    FILE.write_text(PAGE % (held, next(licence for _, licence in found if licence).strip(), scripts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
