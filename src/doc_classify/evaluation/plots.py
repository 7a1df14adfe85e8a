"""The plots of an evaluation as SVG (1.1), drawn here so that the page needs nothing else.

Each has a title and a description for those who do not see it; colours come from the page's
style sheet by class, so that they follow a dark theme.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from doc_classify.evaluation.statistics import Bin, Interval, Point

_WIDTH, _HEIGHT = 480, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 46
_LARGEST_DOT, _SMALLEST_DOT = 13.0, 3.5


def reliability(bins: Iterable[Bin]) -> str:
    """Accuracy against confidence, a dot for each bin, with its interval."""
    bins = tuple(bins)
    most = max(one.count for one in bins)
    parts = [_line(0, 0, 1, 1, "ideal")]
    for one in bins:
        parts.append(
            _line(one.confidence, one.interval.low, one.confidence, one.interval.high, "whisker")
        )
    points = " ".join(f"{_x(one.confidence)},{_y(one.accuracy)}" for one in bins)
    parts.append(f'<polyline class="link" points="{points}"/>')
    for one in bins:
        radius = max(_SMALLEST_DOT, _LARGEST_DOT * (one.count / most) ** 0.5)
        parts.append(
            f'<circle class="dot" cx="{_x(one.confidence)}" cy="{_y(one.accuracy)}" '
            f'r="{radius:.1f}"><title>{one.count:,} documents, confidence {one.confidence:.3f}, '
            f"accuracy {one.accuracy:.3f}</title></circle>"
        )
    told = "; ".join(
        f"{one.count} documents of confidence {one.confidence:.2f} are right in "
        f"{one.accuracy:.0%} of the cases"
        for one in bins
    )
    return _figure(
        "calibration",
        "Calibration: accuracy against confidence",
        f"On the diagonal, confidence is what it says. {told}.",
        parts,
        ("confidence", "accuracy"),
    )


def coverage(points: Iterable[Point], sureness: str, review: tuple[float, float] | None) -> str:
    """Accuracy against coverage; ``review`` is where the classifier itself draws the line."""
    points = tuple(points)
    low = min(point.accuracy for point in points)
    floor = min(0.9, int(low * 10) / 10)
    path = " ".join(f"{_x(point.coverage)},{_y(point.accuracy, floor)}" for point in points)
    first = points[0]
    start = f"{_x(0)},{_y(first.accuracy, floor)}"
    parts = [f'<polyline class="curve" points="{start} {path}"/>']
    if review:
        share, accuracy = review
        parts.append(
            f'<circle class="mark" cx="{_x(share)}" cy="{_y(max(accuracy, floor), floor)}" r="6">'
            f"<title>not for review: {share:.1%} of the documents, accuracy {accuracy:.3f}</title>"
            "</circle>"
        )
    last = points[-1]
    half = next(point for point in points if point.coverage >= 0.5)
    return _figure(
        "coverage",
        f"Accuracy of the surest answers, by {sureness}",
        f"The surest {half.coverage:.0%} are right in {half.accuracy:.1%} of the cases, all in "
        f"{last.accuracy:.1%}.",
        parts,
        (f"share of the documents, highest {sureness} first", "accuracy"),
        floor,
    )


def bar(value: float | None, interval: Interval | None, label: str) -> str:
    """A share as a bar with its interval, small enough for a cell of a table."""
    if value is None:
        return ""
    whisker = ""
    if interval:
        whisker = (
            f'<line class="whisker" x1="{100 * interval.low:.1f}" x2="{100 * interval.high:.1f}" '
            'y1="7" y2="7"/>'
        )
    spoken = f"{label} {value:.3f}"
    if interval:
        spoken += f", 95% interval {interval.low:.3f} to {interval.high:.3f}"
    return (
        f'<svg class="bar" viewBox="0 0 100 14" role="img" aria-label="{escape(spoken)}">'
        f'<rect class="rail" width="100" height="14" rx="2"/>'
        f'<rect class="share" width="{100 * value:.1f}" height="14" rx="2"/>{whisker}</svg>'
    )


def _figure(
    name: str,
    title: str,
    description: str,
    parts: Iterable[str],
    axes: tuple[str, str],
    floor: float = 0.0,
) -> str:
    across, up = axes
    grid = []
    for step in range(6):
        at = step / 5
        value = floor + at * (1 - floor)
        grid.append(_line(at, value, at, value, "grid", across=False, floor=floor))
        grid.append(_line(at, value, at, value, "grid", across=True, floor=floor))
        grid.append(
            f'<text x="{_x(at)}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{at:.1f}</text>'
        )
        grid.append(
            f'<text x="{_LEFT - 8}" y="{_y(value, floor) + 4:.1f}" text-anchor="end">'
            f"{value:.2f}</text>"
        )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(description)}</desc>'
        + "".join(grid)
        + f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" '
        f'text-anchor="middle">{escape(across)}</text>'
        f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" '
        f'text-anchor="middle">{escape(up)}</text>' + "".join(parts) + "</svg>"
    )


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float, floor: float = 0.0) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    return round(_TOP + (1 - (share - floor) / (1 - floor)) * height, 1)


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    kind: str,
    *,
    across: bool | None = None,
    floor: float = 0.0,
) -> str:
    if across is True:
        x1, x2 = 0.0, 1.0
    elif across is False:
        y1, y2 = floor, 1.0
    return (
        f'<line class="{kind}" x1="{_x(x1)}" y1="{_y(y1, floor)}" x2="{_x(x2)}" '
        f'y2="{_y(y2, floor)}"/>'
    )
