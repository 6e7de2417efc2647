"""The figures as a drawing: a small SVG that can be read on light and on dark paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.fleet.report import BUSY_MOST, BUSY_SECONDS, BUSY_WISH
from tests.fleet.scenarios import END, HOUR, MINUTE, OUTAGE, PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.fleet.report import Results

WIDTH, LEFT, RIGHT = 880, 72, 26
STRIP, GAP, TOP = 92, 34, 74
ZOOM = 190
COLOURS = ("ours", "still", "cron")
HEIGHT = TOP + 3 * (STRIP + GAP) + 30 + ZOOM + 40
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 } .small { font-size: 11px; fill: #57606a } .name { font-weight: 600 }
.paper { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 } .down { fill: #f3d9d9 }
.ours { stroke: #0969da } .still { stroke: #bc4c00 } .cron { stroke: #8250df }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .paper { fill: #0d1117 } .grid { stroke: #30363d }
  .down { fill: #4a2226 } .ours { stroke: #58a6ff } .still { stroke: #f0883e } .cron { stroke: #bc8cff }
}
"""


def svg(results: Results) -> str:
    """Return the drawing."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Requests a second of a fleet over a day with an outage</title>",
        f'<style>{STYLE}</style><rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 26, f"{results.agents:,} agents, {len(PROFILES)} profiles each, one tenant", "title"),
        _text(LEFT, 46, "requests in the busiest second of each minute, logarithmic; hours since all booted", "small"),
        *_strips(results),
        *_end_of_outage(results, TOP + 3 * (STRIP + GAP) + 44),
        *_busy(results, TOP + 3 * (STRIP + GAP) + 44),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _strips(results: Results) -> Iterator[str]:
    """Yield a strip of the whole day for each manner."""
    highest = 10 ** math.ceil(math.log10(max(max(each.requests) for each in results.days.values())))
    for number, (name, outcome) in enumerate(results.days.items()):
        top = TOP + number * (STRIP + GAP)
        box = _Box(LEFT, top, WIDTH - LEFT - RIGHT, STRIP, (0, END), (1, highest), logarithmic=True)
        yield box.area(*OUTAGE, "down")
        yield _text(LEFT, top - 6, name, "name")
        if number == 0:
            yield _text(box.x(OUTAGE[0]) + 4, top - 6, "outage", "small")
        yield from box.rules([10**power for power in range(0, int(math.log10(highest)) + 1, 2)])
        yield from box.marks({hour * HOUR: f"{hour}" for hour in range(END // HOUR + 1)})
        minutes = range(0, END - MINUTE + 1, MINUTE)
        yield box.line([(at, max(outcome.requests[at : at + MINUTE])) for at in minutes], COLOURS[number])


def _end_of_outage(results: Results, top: float) -> Iterator[str]:
    """Yield the seconds after the outage, of ours alone: the others would need a page of twenty metres."""
    requests = results.days["token-agent"].requests[OUTAGE[1] - 20 : OUTAGE[1] + 80]
    others = max(results.days["cron at the full hour"].requests[OUTAGE[1] : OUTAGE[1] + 80])
    yield _text(LEFT, top - 24, "token-agent, the end of the outage", "name")
    yield _text(LEFT, top - 9, f"requests in each second; cron: {others:,.0f} in the first", "small")
    box = _Box(LEFT, top, 360, ZOOM - 20, (-20, 80), (0, _round(max(requests))))
    yield box.area(-20, 0, "down")
    yield from box.rules([box.high * part / 4 for part in range(5)])
    yield from box.marks({at: f"{at} s" for at in range(-20, 81, 20)})
    yield box.line([(at - 20, number) for at, number in enumerate(requests)], "ours")


def _busy(results: Results, top: float) -> Iterator[str]:
    """Yield how a busy provider's customers are served over time."""
    left = LEFT + 360 + 72
    yield _text(left, top - 24, "a boot against a busy provider", "name")
    yield _text(left, top - 9, f"{BUSY_MOST:,} tokens/s, else Retry-After: {BUSY_WISH}; share served", "small")
    box = _Box(left, top, WIDTH - left - RIGHT, ZOOM - 20, (0, BUSY_SECONDS), (0, 100))
    yield from box.rules([0, 25, 50, 75, 100], "%")
    yield from box.marks({at: f"{at // 60} min" for at in range(0, BUSY_SECONDS + 1, 180)})
    whole = results.agents * len(PROFILES)
    for (name, outcome), colour, at in zip(results.busy.items(), COLOURS, (0.9, 0.3), strict=False):
        steps = range(0, BUSY_SECONDS + 1, 2)
        counts = _counts(outcome.served, steps)
        yield box.line([(step, 100 * number / whole) for step, number in zip(steps, counts, strict=True)], colour)
        yield _text(box.x(BUSY_SECONDS * 0.5), box.y(100 * at), name, "small")


def _counts(served: Sequence[float], steps: Sequence[int]) -> Iterator[int]:
    """Yield how many were served by the end of each step's second."""
    number = 0
    for step in steps:
        while number < len(served) and served[number] < step + 1:
            number += 1
        yield number


def _round(number: float) -> float:
    """Return the next number with one digit that is not zero."""
    power = 10 ** math.floor(math.log10(number))
    return float(math.ceil(number / power) * power)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{text}</text>'


class _Box:
    """A part of the paper with axes of its own."""

    def __init__(  # noqa: PLR0913 - a rectangle and two axes
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        across: tuple[float, float],
        up: tuple[float, float],
        *,
        logarithmic: bool = False,
    ) -> None:
        self._left, self._top, self._width, self._height = left, top, width, height
        self._across, self._logarithmic = across, logarithmic
        self.low, self.high = up

    def x(self, value: float) -> float:
        begin, end = self._across
        return self._left + self._width * (value - begin) / (end - begin)

    def y(self, value: float) -> float:
        if self._logarithmic:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self._top + self._height * (1 - part)

    def area(self, begin: float, end: float, kind: str) -> str:
        """Return a coloured stretch of time."""
        place = f'x="{self.x(begin):.1f}" y="{self._top}" width="{self.x(end) - self.x(begin):.1f}"'
        return f'<rect class="{kind}" {place} height="{self._height}"/>'

    def rules(self, values: Sequence[float], unit: str = "") -> Iterator[str]:
        """Yield horizontal lines with their values."""
        for value in values:
            y = self.y(value)
            yield f'<path class="grid" d="M{self._left} {y:.1f}h{self._width}"/>'
            yield _text(self._left - 6, y + 4, f"{value:,.0f}{unit}", "small", "end")

    def marks(self, values: dict[int, str]) -> Iterator[str]:
        """Yield what stands below the axis of time."""
        for value, text in values.items():
            yield _text(self.x(value), self._top + self._height + 15, text, "small", "middle")

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """Return a line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="line {kind}" points="{path}"/>'
