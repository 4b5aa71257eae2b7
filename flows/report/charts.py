"""Small charts as inline SVG, for the report: intervals, curves, bars, a waterfall and a heat map.

Pure functions from numbers to markup. No drawing library (importing one takes longer than the whole report). Every text is
escaped in `tag`; colours come from the page's CSS classes, so that light, dark and print share one drawing. Marks
say their numbers when the pointer rests on them. Coordinates are in units of the view box; the page scales it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 420
"""Width of a chart's view box: about the width of a phone, so that text keeps its size there."""
NARROW = 320
"""Width of a heat map's view box: several stand beside each other."""
POINTS = 240
"""Most points a curve is drawn with; longer ones are averaged in equal runs of steps. Half of WIDTH: more cannot be seen."""
HOVERS = 60
"""Most points of a curve that say their numbers; ours, they keep the page light."""
LETTER = 6.5
"""Width of an average letter of the charts' text, to leave room for labels; measured generously."""


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """One element, with values and children escaped unless they are markup. class_ becomes class, text_anchor text-anchor."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.4g}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>{''.join(escape(child) for child in children)}</{name}>")


def _text(x: float, y: float, words: object, anchor: str = "start", class_: str = "") -> Markup:
    return tag("text", str(words), x=x, y=y, text_anchor=anchor, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _hover(words: str) -> Markup:
    return tag("title", words)


def _picture(height: float, label: str, *parts: str, width: float = WIDTH) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=label, class_="chart")


def short(value: float) -> str:
    """A number as an axis says it: 0.25, 120, 1.5k, 3M.

    >>> [short(value) for value in (0.25, 120, 1500, 3_000_000, -0.5)]
    ['0.25', '120', '1.5k', '3M', '\u22120.5']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(0, 1), ticks(0, 37)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 10.0, 20.0, 30.0])
    """
    raw = (high - low) / count
    if not raw > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight map from values to positions. Values beyond the ends are drawn at the end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


# --- intervals -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """One estimate. kind: CSS class of its colour. other: a second mark without interval (pass^4), or None."""

    label: str
    kind: str
    mean: float
    low: float
    high: float
    note: str
    other: float | None = None


def intervals(
    rows: Sequence[Interval],
    limits: tuple[float, float],
    axis: str,
    references: Mapping[str, float] | None = None,
    signed: bool = False,
    step: float = 0.0,
) -> Markup:
    """Estimates below each other: a dot, its interval, the numbers at the right; references as dashed vertical lines. What lies beyond
    the limits is an arrow at the end. step: between two lines of the scale; 0: as it fits."""
    left, right, high = 8 + LETTER * max(len(row.label) for row in rows), WIDTH - (136 if signed else 114), 30
    scale = Scale(*limits, left + 10, right - 10)
    heads = _heads(references or {}, scale)
    top = 16 + 14 * len({level for *_, level in heads})
    bottom = top + high * len(rows)
    parts: list[Markup] = []
    marks = [step * number for number in range(round(limits[0] / step), round(limits[1] / step) + 1)] if step else ticks(*limits)
    every = math.ceil(40 * (len(marks) - 1) / max(scale(limits[1]) - scale(limits[0]), 1.0)) or 1
    for value in marks:
        parts += [_line(scale(value), top, scale(value), bottom, "grid")]
        if not step or round(value / step) % every == 0:
            parts += [_text(scale(value), bottom + 16, short(round(value, 10)), "middle", "tick")]
    if signed:
        parts.append(_line(scale(0), top, scale(0), bottom, "zero"))
    for words, value, x, level in heads:
        parts.append(tag("g", _hover(f"{words}"), _line(scale(value), top - 2, scale(value), bottom, "reference"), class_="reference"))
        parts.append(_text(x, 12 + 14 * level, words, "middle", "reference-text"))
    for index, row in enumerate(rows):
        parts.append(_interval(row, scale, left, right, top + high * (index + 0.5), signed))
    parts.append(_text((left + right) / 2, bottom + 33, axis, "middle", "axis"))
    return _picture(bottom + 40, f"{axis}: " + "; ".join(f"{row.label} {row.mean:.2f}" for row in rows), *parts)


def _heads(references: Mapping[str, float], scale: Scale) -> list[tuple[str, float, float, int]]:
    """(words, value, x of the words, line of text): equal references share their words, near ones get lines of their own."""
    groups: dict[float, list[str]] = {}
    for name, value in references.items():
        groups.setdefault(value, []).append(name)
    placed: list[tuple[str, float, float, int]] = []
    for value, names in sorted(groups.items()):
        words = f"{', '.join(names)} {value:.2f}"
        half = LETTER * len(words) / 2
        x = min(max(scale(value), half), WIDTH - half)
        level = 0
        while any(other == level and abs(x - at) < half + LETTER * len(text) / 2 + 8 for text, _, at, other in placed):
            level += 1
        placed.append((words, value, x, level))
    return placed


def _interval(row: Interval, scale: Scale, left: float, right: float, y: float, signed: bool) -> Markup:
    sign = "+" if signed else ""
    numbers = f"{row.mean:{sign}.2f}".replace("-", "\u2212")
    spread = f"{row.low:{sign}.2f} to {row.high:{sign}.2f}".replace("-", "\u2212")
    parts = [
        _hover(row.note),
        tag("rect", x=0, y=y - 14, width=WIDTH, height=28, class_="catch"),
        _text(left - 4, y + 4, row.label, "end", "label"),
    ]
    beyond = (row.mean > scale.high) - (row.mean < scale.low)
    if row.low < scale.high and row.high > scale.low:
        parts.append(_line(scale(row.low), y, scale(row.high), y, "spread"))
        parts += [_line(scale(end), y - 4, scale(end), y + 4, "cap") for end in (row.low, row.high) if scale.low <= end <= scale.high]
    if row.other is not None:
        x = scale(row.other)
        parts.append(
            tag(
                "path",
                d=f"M{x - 5:.1f} {y:.1f} L{x:.1f} {y - 5:.1f} L{x + 5:.1f} {y:.1f} L{x:.1f} {y + 5:.1f} Z",
                class_="diamond",
            )
        )
    if beyond:
        x = scale(row.mean)
        parts.append(
            tag(
                "path",
                d=f"M{x - 5 * beyond:.1f} {y - 6:.1f} L{x + 6 * beyond:.1f} {y:.1f} L{x - 5 * beyond:.1f} {y + 6:.1f} Z",
                class_="dot",
            )
        )
    else:
        parts.append(tag("circle", cx=scale(row.mean), cy=y, r=5.5, class_="dot"))
    parts.append(_text(right + 6, y + 4, numbers, "start", "value"))
    parts.append(_text(WIDTH - 2, y + 4, spread, "end", "tick"))
    return tag("g", *parts, class_=f"mark {row.kind}")


# --- curves --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One series. points: (x, y) by rising x. shape: line, faint (a thin pale line) or dots (joined marks)."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    shape: str = "line"


def smooth(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Mean of each point and the window - 1 points before it (fewer at the start).

    >>> smooth([(1, 0.0), (2, 1.0), (3, 1.0)], 2)
    [(1, 0.0), (2, 0.5), (3, 1.0)]
    """
    values = [y for _, y in points]
    return [
        (x, math.fsum(values[max(0, index + 1 - window) : index + 1]) / min(window, index + 1)) for index, (x, _) in enumerate(points)
    ]


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means over runs of neighbours of equal length."""
    run = math.ceil(len(points) / most) if points else 1
    pieces = [points[start : start + run] for start in range(0, len(points), run)]
    return [(math.fsum(x for x, _ in piece) / len(piece), math.fsum(y for _, y in piece) / len(piece)) for piece in pieces]


def curves(series: Sequence[Curve], x_axis: str, y_axis: str, height: int = 250) -> Markup:
    """Lines over steps with a legend above; the y axis starts at 0 unless a value is negative."""
    everything = [point for curve in series for point in curve.points]
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    low, high = min(0.0, *ys), max(ys) if max(ys) > min(0.0, *ys) else 1.0
    high = 1.0 if 0.6 <= high <= 1.0 and low == 0.0 else high * 1.05
    top, bottom, left = 32, height - 38, 46
    across, up = Scale(min(xs), max(xs), left, WIDTH - 12), Scale(low, high, bottom, top)
    parts: list[Markup] = []
    for value in ticks(low, high):
        parts += [
            _line(left, up(value), WIDTH - 12, up(value), "grid"),
            _text(left - 6, up(value) + 4, short(value), "end", "tick"),
        ]
    for value in ticks(min(xs), max(xs), 5):
        parts.append(_text(across(value), bottom + 16, short(value), "middle", "tick"))
    parts += [
        _line(left, bottom, WIDTH - 12, bottom, "base-line"),
        _text((left + WIDTH) / 2, bottom + 33, x_axis, "middle", "axis"),
    ]
    parts.append(_text(left - 40, 14, y_axis, "start", "axis"))
    parts += [_curve(curve, across, up) for curve in series]
    parts += _legend(series)
    return _picture(height, f"{y_axis} by {x_axis}: {', '.join(curve.label for curve in series)}", *parts)


def _curve(curve: Curve, across: Scale, up: Scale) -> Markup:
    points = thinned(curve.points)
    path = tag("polyline", points=" ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points), class_=f"curve {curve.shape}")
    if curve.shape == "faint":
        return tag("g", path, class_=curve.kind)
    radius = 3.5 if curve.shape == "dots" else 5.0
    marks = [
        tag(
            "circle",
            _hover(f"{curve.label}, {x:.4g}: {y:.4g}"),
            cx=across(x),
            cy=up(y),
            r=radius,
            class_=f"point {curve.shape}",
        )
        for x, y in thinned(points, HOVERS)
    ]
    return tag("g", path, *marks, class_=curve.kind)


def _legend(series: Sequence[Curve]) -> list[Markup]:
    parts, x = [], float(WIDTH - 12)
    for curve in reversed([curve for curve in series if curve.label]):
        x -= LETTER * len(curve.label)
        parts.append(_text(x, 14, curve.label, "start", "legend"))
        swatch = tag("circle", cx=x - 12, cy=10, r=3.5, class_="point dots") if curve.shape == "dots" else Markup("")
        parts.append(tag("g", _line(x - 20, 10, x - 5, 10, f"curve {curve.shape}"), swatch, class_=curve.kind))
        x -= 30
    return parts


# --- counts --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One bar: `value` drawn solid, then `gone` pale (what a check dropped). words: what stands at its end."""

    label: str
    value: float
    words: str
    note: str
    kind: str = "count"
    gone: float = 0.0


def bars(rows: Sequence[Bar], label: str) -> Markup:
    """Horizontal bars with their words behind them. The widest fills the room that labels and words leave."""
    left = 10 + LETTER * max(len(row.label) for row in rows)
    right = WIDTH - 10 - LETTER * max(len(row.words) for row in rows)
    scale = Scale(0, max(row.value + row.gone for row in rows) or 1.0, left, max(right, left + 40))
    parts = [_bar(row, scale, left, 8 + 26 * index) for index, row in enumerate(rows)]
    return _picture(26 * len(rows) + 8, f"{label}: " + "; ".join(f"{row.label} {row.words}" for row in rows), *parts)


def _bar(row: Bar, scale: Scale, left: float, y: float) -> Markup:
    end, gone = scale(row.value), scale(row.value + row.gone)
    return tag(
        "g",
        _hover(row.note),
        tag("rect", x=0, y=y - 4, width=WIDTH, height=26, class_="catch"),
        _text(left - 6, y + 13, row.label, "end", "label"),
        tag("rect", x=left, y=y, width=max(end - left, 1.0 if row.value else 0.0), height=18, rx=2, class_="bar"),
        tag("rect", x=end, y=y, width=gone - end, height=18, rx=2, class_="gone"),
        _text(gone + 6, y + 13, row.words, "start", "value"),
        class_=f"mark {row.kind}",
    )


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map. share: 0 (cold) to 1 (hot)."""

    share: float
    note: str


def heat(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], Cell], axis: str) -> Markup:
    """A heat map; what has no cell stays empty. Column labels are thinned when there are many."""
    left = 10 + LETTER * max(len(row) for row in rows)
    width = min(56.0, (NARROW - left - 4) / len(columns))
    every = math.ceil(LETTER * max(len(column) for column in columns) / width)
    bottom = 4 + 20 * len(rows)
    parts = [_text(left - 6, 18 + 20 * index, row, "end", "label") for index, row in enumerate(rows)]
    for index, column in enumerate(columns):
        if index % every == 0:
            parts.append(_text(left + width * (index + 0.5), bottom + 15, column, "middle", "tick"))
    for (row, column), cell in cells.items():
        x, y = left + width * columns.index(column), 4 + 20 * rows.index(row)
        style = f"--v:{100 * min(max(cell.share, 0.0), 1.0):.0f}"
        parts.append(tag("rect", _hover(cell.note), x=x, y=y, width=width - 1, height=19, rx=2, class_="cell", style=style))
    parts.append(_text(left + width * len(columns) / 2, bottom + 31, axis, "middle", "axis"))
    return _picture(bottom + 38, f"heat map of {len(rows)} by {len(columns)}", *parts, width=NARROW)
