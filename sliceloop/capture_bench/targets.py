"""What the capture path aims at, beside what was measured."""

from collections.abc import Iterable, Iterator

from sliceloop.capture_bench.figures import CaptureFigures, SeverityFigures, Share, Target

CAREFUL, BAD = 1.0, 1.6
"""The severities that have targets: what a careful person with a usual webcam gets, and a bad frame."""


def targets(figures: CaptureFigures) -> tuple[Target, ...]:
    """List the targets; one that was not measured says so."""
    by_severity = {one.severity: one for one in figures.severities}
    careful, bad = by_severity.get(CAREFUL), by_severity.get(BAD)
    return (
        *_places(careful, bad),
        _at_most("accepted although wrong, of accepted", 0.005, _accepted_wrong(figures.severities)),
        _at_most("accepted without a slice", 0.01, _total(one.accepted for one in figures.empty)),
        *_readings(careful, bad),
        _at_most(
            "locate, rectify and photometry, median ms",
            25.0,
            figures.times.geometry.median_ms if figures.times.geometry else None,
        ),
    )


def _places(careful: SeverityFigures | None, bad: SeverityFigures | None) -> Iterator[Target]:
    place = careful.localisation if careful else None
    yield _at_least("severity 1: mean IoU", 0.98, place.mean if place else None)
    yield _at_least("severity 1: 5th percentile of IoU", 0.95, place.p5 if place else None)
    yield _at_least("severity 1: frames with IoU >= 0.95", 0.99, place.at_least_095.value if place else None)
    worst = bad.localisation.at_least_095.value if bad else None
    yield _at_least("severity 1.6: frames with IoU >= 0.95", 0.95, worst)


def _readings(careful: SeverityFigures | None, bad: SeverityFigures | None) -> Iterator[Target]:
    for name, severity, bound in (("severity 1", careful, 0.02), ("severity 1.6", bad, 0.05)):
        loss = severity.reading.loss if severity and severity.reading else None
        yield _at_most(f"{name}: balanced accuracy lost", bound, loss.value if loss else None)
    yield _at_most("severity 1.6: abstention", 0.05, bad.abstention.refused.value if bad else None)
    for name, severity in (("severity 1", careful), ("severity 1.6", bad)):
        gained = severity.paper.recovered if severity and severity.paper else None
        yield _at_least(f"{name}: recovered of the paper's loss", 0.9, gained.value if gained else None)


def _accepted_wrong(severities: Iterable[SeverityFigures]) -> float | None:
    return _total(one.localisation.accepted_wrong for one in severities)


def _total(shares: Iterable[Share]) -> float | None:
    told = list(shares)
    return Share(count=sum(one.count for one in told), of=sum(one.of for one in told)).value


def _at_least(name: str, bound: float, measured: float | None) -> Target:
    return Target(
        name=name, bound=f">= {bound:g}", measured=measured, reached=None if measured is None else measured >= bound
    )


def _at_most(name: str, bound: float, measured: float | None) -> Target:
    return Target(
        name=name, bound=f"<= {bound:g}", measured=measured, reached=None if measured is None else measured <= bound
    )
