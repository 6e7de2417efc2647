"""A result in words and figures, for people: 80 columns, no colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hunt.play import Order, Result
    from tests.hunt.reader import Findings
    from tests.hunt.victims import Victim

DESCRIBED = 8
"""Bad reads that are shown."""


def lines(result: Result, order: Order) -> Iterator[str]:
    """Yield the lines of a report."""
    yield f"{result.file_system} ({result.place}), {result.seconds:.1f} s, seed {order.seed}"
    yield f"  {'reader':9} {'reads':>10} {'bad':>6}"
    tokens = [each for each in result.findings if each.of_tokens]
    yield from map(_row, tokens)
    yield f"  {'all':9} {result.reads:10,} {sum(each.bad_reads for each in tokens):6,}  of token files; besides:"
    yield from (_row(each) for each in result.findings if not each.of_tokens)
    for victim in reversed(result.victims):
        yield from _victim(result, victim)
    shown = [text for each in result.findings for text in each.bad[:2]]
    yield from (f"  BAD {text}" for text in shown[:DESCRIBED])
    yield from (f"  LEFT BEHIND {name}" for name in result.strays[:DESCRIBED])
    left = f"{len(result.strays)} files left behind" if result.strays else "nothing left behind"
    yield f"  {f'{result.bad_reads:,}' if result.bad_reads else 'no'} bad read{'s' * (result.bad_reads != 1)}, {left}"


def _row(findings: Findings) -> str:
    return f"  {findings.name:9} {findings.reads:10,} {findings.bad_reads:6,}  {findings.manner}"


def _victim(result: Result, victim: Victim) -> Iterator[str]:
    issued, written = result.issued[victim.name], result.written[victim.name]
    pace = victim.worked / issued * 1000 if issued else 0
    seen = result.seen(victim.name)
    yield f"  {victim.name:9} {issued:,} tokens, one every {pace:.0f} ms; {seen:,} of them were read"
    killed = f"; killed {victim.kills:,} times, {victim.caught:,} of them in a write" if victim.kills else ""
    yield f"  {'':9} {written:,} files written{killed}"
