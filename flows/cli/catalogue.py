"""All commands: where they stand in `cairn --help`, in which file they are, and what they do in one line.

The list is complete without importing a command, so that help and completion are quick. A new command is a function in a file of this
folder and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One command. panel: its group in the help. module: of this package. summary: what it does, in one line."""

    name: str
    panel: str
    module: str
    summary: str


_PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Begin": {
        "init": ("init", "make a project of your own in an empty folder"),
        "use": ("project", "list the profiles, or make one the workspace's params"),
        "upgrade": ("project", "merge a newer Cairn into a project and migrate its params"),
        "migrate": ("project", "bring params of an earlier version to where they stand today"),
    },
    "Run": {
        "run": ("run", "run the road; what is cached is not run again"),
        "stage": ("run", "run one stage on what lies in data/, as `dvc repro` does"),
        "accept": ("run", "keep results of stages although their keys changed, as `dvc commit` does"),
    },
    "Look": {
        "status": ("look", "each stage: cached or would run, and why"),
        "forecast": ("look", "memory, tokens and hours of each stage that trains or plays, before anything runs"),
        "trace": ("trails", "where a model, a run, a result or a row comes from, down to blueprints, params and commit"),
        "compare": ("trails", "in what two runs, versions, experiments or commits differ, and what that did to figures"),
        "experiments": ("look", "DVC's experiments in the columns that you choose, as a table and a chart"),
        "methods": ("look", "the rooms, their methods and their papers"),
        "doctor": ("upkeep", "what a project stands on, servers and kept bytes included: what is wrong, and what mends it"),
        "gc": ("upkeep", "stored results that no params, commit, version or run names any more: listed, and with --yes deleted"),
        "preview": ("look", "a few blueprints and conversations, shown readably; nothing is recorded"),
    },
    "Models": {
        "champion": ("champion", "who is champion, and the evidence that decisions use"),
        "promote": ("champion", "carry out the last decision (for approval: manual)"),
        "rollback": ("champion", "make the champion before this one champion again"),
        "promotions": ("champion", "who moved the champion's alias: when, why, and on which evidence"),
        "merge": ("merge", "merge any checkpoints by a recipe, beside the road"),
        "search": ("merge", "better params for the merge, found on validation problems"),
        "serve": ("serve", "the champion, a version or a folder over HTTP: chat and token ids"),
        "evaluate": ("evaluate", "pass^k of any endpoint or checkpoint on a world's problems, beside the road"),
        "chat": ("chat", "how a checkpoint writes conversations: found, proven, shown"),
    },
    "Conversations": {
        "import": ("data", "recorded conversations become rows of a stage: read, checked, replayed, masked"),
        "export": ("data", "conversations as a data set for other trainers, with a card"),
        "regrade": ("data", "grade stored conversations again; what the present grading changes, part by part"),
        "calls": ("data", "answers of model servers that are kept: size, tokens and money per model"),
        "reserve": ("data", "the proven test problems of worlds that draw none: how many are free, and prove more"),
        "bank": ("data", "pin the examples that a generator is shown to those of the last run, or let them grow"),
    },
    "Worlds": {"world": ("world", "write, prove or play a world of your own")},
    "Papers": {"claims": ("claims", "papers' claims, measured here: run, verdicts, what is current")},
}

COMMANDS = {name: Entry(name, panel, module, summary) for panel, group in _PANELS.items() for name, (module, summary) in group.items()}
"""Name -> command, in the order of the help."""
