"""What is published of the papers: an index, and for each that was measured a page with a plot. All of it follows from the committed
results and the paper's file, so that whoever makes it anew gets the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType

from flows import papers
from flows.claims.declaration import Claim
from flows.claims.results import Results, read
from flows.claims.verdict import MEANING, Finding, Verdict, in_words, judge
from flows.report import charts
from tasks.contract.params import BadInput
from tasks.engine.files import write_text

PAGES = "pages"
"""The folder of the pages, beside the papers' files."""
STYLE = Path(charts.__file__).with_name("charts.css")


def index() -> str:
    """A table of all papers: claim, verdict, effect, seeds, minutes. What was not run is listed as not run."""
    lines = ["| paper | claim | verdict | effect, 95 % interval | seeds | minutes |", "|---|---|---|---|---|---|"]
    for slug in papers.names():
        module, results = papers.load(slug), read(papers.RESULTS / f"{slug}.json")
        claim: Claim = module.CLAIM
        name = f"[{module.TITLE}]({PAGES}/{slug}.md)" if results else f"{module.TITLE} (`{slug}.py`)"
        lines.append(f"| {name} | {_cell(claim.statement)} | {' | '.join(_measured(claim, results))} |")
    return "\n".join(lines)


def meanings() -> str:
    """A table of the verdicts, with what each means."""
    return "\n".join(["| verdict | means |", "|---|---|", *(f"| {word} | {meaning} |" for word, meaning in MEANING.items())])


def _measured(claim: Claim, results: Results | None) -> tuple[str, str, str, str]:
    """Verdict, effect, seeds and minutes, as the index has them."""
    if results is None:
        return "not run", "", str(claim.seeds), ""
    minutes = f"{sum(cell.seconds for cell in results.cells) / 60:.1f}"
    verdict = _verdict(claim, results)
    if isinstance(verdict, str):
        return "not all run", "", str(claim.seeds), minutes
    return f"**{verdict.word}**", f"{claim.effect.metric} {in_words(verdict.effect.difference)}", str(claim.seeds), minutes


def generated() -> dict[str, str]:
    """Path below the papers' folder -> text, of every page and plot."""
    found = {}
    for slug in papers.names():
        if results := read(papers.RESULTS / f"{slug}.json"):
            module = papers.load(slug)
            found[f"{PAGES}/{slug}.md"] = page(slug, module, results)
            if not isinstance(verdict := _verdict(module.CLAIM, results), str):
                found[f"{PAGES}/{slug}.svg"] = plot(module.CLAIM, verdict)
    return found


def differing() -> list[Path]:
    """Pages and plots that are not as the results have them, or that no results need any more."""
    texts = {papers.HERE / path: text for path, text in generated().items()}
    there = {path for path in (papers.HERE / PAGES).glob("*") if path.is_file()}
    return sorted(path for path in there | set(texts) if not path.is_file() or path.read_text(encoding="utf-8") != texts.get(path))


def write() -> list[Path]:
    """Make all pages as the results have them; returns what was written or removed."""
    texts = {papers.HERE / path: text for path, text in generated().items()}
    changed = differing()
    for path in changed:
        if path in texts:
            write_text(path, texts[path])
        else:
            path.unlink()
    return changed


def page(slug: str, module: ModuleType, results: Results) -> str:
    """The page of a paper that was measured, in Markdown."""
    claim: Claim = module.CLAIM
    verdict = _verdict(claim, results)
    return "\n".join([f"# {module.TITLE}", "", *_head(slug, module), "", *_outcome(slug, claim, verdict), *_cells(claim, results), ""])


def _head(slug: str, module: ModuleType) -> Iterator[str]:
    yield f"[{module.PAPER.rsplit('/', 1)[-1]}]({module.PAPER}), measured here by [`{slug}.py`](../{slug}.py), which states"
    yield f"how, and what is done otherwise than in the paper; every number is in [`{slug}.json`](../results/{slug}.json)."
    yield f"\n> {module.CLAIM.statement}"


def _outcome(slug: str, claim: Claim, verdict: Verdict | str) -> Iterator[str]:
    if isinstance(verdict, str):
        yield f"**No verdict.** {verdict}\n"
        return
    yield f"**{verdict.word}**: {verdict.reason}.\n"
    yield f"That is to say: {MEANING[verdict.word]}. {_power(claim, verdict)}\n"
    yield f"![differences with their intervals]({slug}.svg)\n"
    yield "| what | difference of | in | 95 % interval | as the claim needs it |"
    yield "|---|---|---|---|---|"
    for part, findings in _parts(verdict):
        for one in findings:
            holds = "decides nothing" if one.holds is None else "yes" if one.holds else "no"
            what = _cell(part if part == one.name else f"{part}: {one.name}")
            yield f"| {what} | {one.treatment} minus {one.baseline} | {one.metric} | {in_words(one.difference)} | {holds} |"
    yield ""


def _parts(verdict: Verdict) -> list[tuple[str, Sequence[Finding]]]:
    """The findings of a verdict, under what they are for."""
    return [
        ("effect", (verdict.effect,)),
        ("also claimed", verdict.also),
        ("mechanism control", verdict.mechanisms),
        ("sanity", verdict.sanity),
        ("reported", verdict.reported),
    ]


def _power(claim: Claim, verdict: Verdict) -> str:
    needed = "no number of seeds that anybody runs would" if verdict.seeds_needed is None else f"{verdict.seeds_needed} would in 80 %"
    size = f"{claim.effect.smallest:g} in {claim.effect.metric}"
    return f"An effect of {size}, the smallest that matters, is found by {claim.seeds} seeds in {verdict.power:.0%} of cases; {needed}."


def _cells(claim: Claim, results: Results) -> Iterator[str]:
    """What was measured, arm by arm, and on what."""
    yield "| arm | metric | mean over seeds | between seeds | seeds | seconds a seed |"
    yield "|---|---|---|---|---|---|"
    for arm, metrics in claim.arms().items():
        cells = [cell for cell in results.cells if cell.arm == arm and not cell.failed]
        seconds = f"{fmean(cell.seconds for cell in cells):.1f}" if cells else ""
        for metric in metrics:
            means = [cell.figures[metric].mean for cell in cells if metric in cell.figures]
            spread = f"{stdev(means):.3g}" if len(means) > 1 else ""
            yield f"| {arm} | {metric} | {f'{fmean(means):.4g}' if means else ''} | {spread} | {len(means)} | {seconds} |"
    machines = sorted({", ".join(f"{key} {value}" for key, value in cell.machine.items()) for cell in results.cells})
    yield "\nMeasured on " + "; ".join(machines) + "."
    yield from (f"\n{cell.arm} with seed {cell.seed} failed: {cell.failed}" for cell in results.cells if cell.failed)


def plot(claim: Claim, verdict: Verdict) -> str:
    """The differences and their intervals as an SVG file; the smallest effect that matters is a dashed line."""
    rows = []
    for _, findings in _parts(verdict)[:3]:
        for one in findings:
            kind = "good" if one.holds else "bad"
            estimate = one.difference
            rows.append(charts.Interval(f"minus {one.baseline}", kind, estimate.mean, estimate.low, estimate.high, one.reason))
    sign = 1 if claim.effect.direction == "higher" else -1
    ends = [0.0, sign * claim.effect.smallest, *(end for row in rows for end in (row.low, row.high) if math.isfinite(end))]
    room = 0.05 * (max(ends) - min(ends))
    axis = f"{claim.treatment} minus another arm, {claim.effect.metric}"
    limits, smallest = (min(ends) - room, max(ends) + room), {"smallest": sign * claim.effect.smallest}
    drawn = charts.intervals(rows, limits, axis, smallest, signed=True)
    style = f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>"
    return f"{drawn}\n".replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{style}", 1)


def _verdict(claim: Claim, results: Results) -> Verdict | str:
    """The verdict, or why there is none yet."""
    try:
        return judge(claim, results)
    except BadInput as error:
        return str(error)


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
