"""capture.md: a capture benchmark to read, each figure with its n and its interval."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sliceloop.capture_bench.figures import (
    CaptureFigures,
    Group,
    Localisation,
    Reading,
    SeverityFigures,
    Share,
    Target,
)
from sliceloop.capture_bench.measures import GOOD_IOU, WRONG_IOU, named
from sliceloop.capture_bench.origin import CaptureRecord
from training.evaluate import Estimate
from training.judging.page import table


def capture_page(record: CaptureRecord, pictures: Iterable[Path]) -> str:
    """Return the Markdown of a run; its first lines say what it is not."""
    figures = record.figures
    parts = [
        *(f"**{mark}**" for mark in record.marks),
        "# Capture benchmark",
        _what(record),
        *(("## Targets", _targets_table(record.targets)) if record.targets else ()),
        "## Outline",
        f"Intersection over union of found and true outline; none found counts as 0. Wrong is below {WRONG_IOU}.",
        _outline_table(figures.severities),
        *_reading_parts(figures.severities),
        "## Refused frames",
        _reasons_table(figures.severities),
        *(("## Frames without a slice", _empty_table(figures)) if figures.empty else ()),
        *_without_parts(figures.severities),
        *(("## One factor at a time", _factor_table(figures)) if figures.factors else ()),
        *_source_parts(figures.severities),
        *_page_parts(figures.severities),
        "## Time",
        _times(figures),
        "## Pictures",
        *(f"![{path.stem}]({path.name})" for path in pictures),
        "## Where this comes from",
        _origin(record),
    ]
    return "\n\n".join(parts) + "\n"


def summary(record: CaptureRecord) -> list[str]:
    """Return the lines for the terminal."""
    lines = list(record.marks)
    for one in record.figures.severities:
        lines.append(f"{one.name}: {_place(one.localisation)}; refused {one.abstention.refused}")
        if one.reading is not None:
            paper = f", the paper's path {_shown(one.paper.reading.captured)}" if one.paper else ""
            gained = f", {_shown(one.paper.recovered)} of its loss recovered" if one.paper else ""
            lines.append(
                f"  balanced accuracy: digital {_shown(one.reading.digital)}, captured {_shown(one.reading.captured)}, "
                f"lost {_shown(one.reading.loss)}{paper}{gained}; same answer {one.reading.agreement}"
            )
    if record.recording is not None:
        held = record.recording
        lines.append(
            f"slides taken {held.slides_taken}, read {held.slides_read}; accepted without tags {held.others_accepted}"
        )
    if record.figures.empty:
        accepted = _sum(one.accepted for one in record.figures.empty)
        lines.append(f"frames without a slice accepted: {accepted}")
    times = record.figures.times
    if times.geometry is not None:
        lines.append(
            f"locate, rectify and photometry: {times.geometry.median_ms:.1f} ms (95 %: {times.geometry.p95_ms:.1f}), "
            f"{times.ratio_median:.1f} times decoding the frame's JPEG"
        )
    missed = [target for target in record.targets if target.reached is False]
    lines += [f"not reached: {target.name} {target.bound}, measured {target.measured:.4g}" for target in missed]
    return lines


def _what(record: CaptureRecord) -> str:
    data = record.data
    of = "phantom slices" if data.are_phantoms else "slices"
    lines = [
        f"- {data.n_slices} {of} of {data.n_patients} patients, split {data.split}, sources {', '.join(data.sources)}",
        f"- frames through the camera source as {record.feed}"
        + (f"; simulator family {record.family}" if record.family else ""),
        f"- grey-wedge calibration: {'yes' if record.calibrated else 'no'}",
    ]
    for what, network in (("network", record.network), ("the paper's path reads with", record.plain_network)):
        if network is not None:
            lines.append(
                f"- {what}: {network.name} ({network.sha256[:12]}); patients new to it: {network.leak.checked}"
            )
    if record.recording is not None:
        held = record.recording
        lines.append(
            f"- slides taken: {held.slides_taken}; read: {held.slides_read}; pictures without readable tags that were "
            f"accepted: {held.others_accepted}"
        )
    return "\n".join(lines)


def _targets_table(targets: Sequence[Target]) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [(one.name, one.bound, _number(one.measured), words[one.reached]) for one in targets]
    return table(("target", "bound", "measured", "reached"), rows)


def _outline_table(severities: Sequence[SeverityFigures]) -> str:
    rows = []
    for one in severities:
        place = one.localisation
        rows.append(
            (
                one.name,
                place.n,
                _four(place.mean),
                _four(place.p5),
                place.at_least_095,
                place.accepted_wrong,
            )
        )
        if one.paper is not None:
            theirs = one.paper.localisation
            rows.append(
                (
                    "... the paper's crop",
                    theirs.n,
                    _four(theirs.mean),
                    _four(theirs.p5),
                    theirs.at_least_095,
                    theirs.accepted_wrong,
                )
            )
    header = ("", "frames", "mean", "5th percentile", f">= {GOOD_IOU}", "accepted although wrong")
    return table(header, rows)


def _reading_parts(severities: Sequence[SeverityFigures]) -> list[str]:
    rows: list[Sequence[object]] = []
    for one in severities:
        if one.reading is None:
            continue
        rows.append((one.name, *_reading_cells(one.reading), ""))
        if one.paper is not None:
            rows.append(("... the paper's path", *_reading_cells(one.paper.reading), _shown(one.paper.recovered)))
        rows += [(f"... {name}", *_reading_cells(reading), "") for name, reading in one.crossed.items()]
    if not rows:
        return []
    header = ("", "digital", "captured", "lost", "refused as wrong", "same answer", "of its loss recovered by ours")
    said = (
        "By slice, with 95 % intervals from drawing patients. Digital: the same network on the digital slices. "
        "Captured and lost: on the frames that were not refused. Recovered: the share of the paper's loss that ours "
        "does not have, each against its own network's digital figure; empty where the paper's path loses nothing."
    )
    return ["## Balanced accuracy", said, table(header, rows)]


def _reading_cells(reading: Reading) -> tuple[object, ...]:
    shown = (reading.digital, reading.captured, reading.loss, reading.refused_wrong)
    return (*(_shown(one) for one in shown), reading.agreement)


def _reasons_table(severities: Sequence[SeverityFigures]) -> str:
    reasons = sorted({reason for one in severities for reason in one.abstention.by_reason})
    rows = [
        (one.name, one.abstention.refused, *(one.abstention.by_reason.get(reason, 0) for reason in reasons))
        for one in severities
    ]
    return table(("", "refused", *reasons), rows)


def _empty_table(figures: CaptureFigures) -> str:
    severities = sorted({one.severity for one in figures.empty})
    scenes = sorted({one.scene for one in figures.empty})
    by_key = {(one.scene, one.severity): one.accepted for one in figures.empty}
    rows: list[Sequence[object]] = [
        (scene, *(by_key.get((scene, severity)) for severity in severities), _sum(_of_scene(figures, scene)))
        for scene in scenes
    ]
    rows.append(("all", *("" for _ in severities), _sum(one.accepted for one in figures.empty)))
    return "Accepted:\n\n" + table(("", *(named(severity) for severity in severities), "all"), rows)


def _of_scene(figures: CaptureFigures, scene: str) -> list[Share]:
    return [one.accepted for one in figures.empty if one.scene == scene]


def _without_parts(severities: Sequence[SeverityFigures]) -> list[str]:
    rows: list[Sequence[object]] = []
    for one in severities:
        if not one.without:
            continue
        rows.append(
            (
                f"{one.name}, all stages",
                *_variant_cells(one.localisation, one.abstention.refused, one.reading),
            )
        )
        rows += [
            (f"... without {stage}", *_variant_cells(off.localisation, off.abstention.refused, off.reading))
            for stage, off in one.without.items()
        ]
    if not rows:
        return []
    header = ("", "mean IoU", "5th percentile", "accepted although wrong", "refused", "captured", "lost", "same answer")
    return ["## One stage off at a time", table(header, rows)]


def _variant_cells(place: Localisation, refused: Share, reading: Reading | None) -> tuple[object, ...]:
    cells = (_four(place.mean), _four(place.p5), place.accepted_wrong, refused)
    if reading is None:
        return (*cells, "", "", "")
    return (*cells, _shown(reading.captured), _shown(reading.loss), reading.agreement)


def _factor_table(figures: CaptureFigures) -> str:
    rows = [
        (
            one.factor,
            f"{one.severity:g}",
            one.localisation.n,
            _four(one.localisation.mean),
            _four(one.localisation.p5),
            one.abstention.refused,
            one.agreement,
        )
        for one in figures.factors
    ]
    header = ("factor alone", "severity", "frames", "mean IoU", "5th percentile", "refused", "same answer")
    return table(header, rows)


def _source_parts(severities: Sequence[SeverityFigures]) -> list[str]:
    rows = [
        (
            *_place_cells(one, part.name),
            _shown(one.reading.digital if one.reading else None),
            _shown(one.reading.captured if one.reading else None),
        )
        for part in severities
        for one in part.by_source
    ]
    return ["## By source", table((*_GROUP_HEADER, "digital", "captured"), rows)]


def _page_parts(severities: Sequence[SeverityFigures]) -> list[str]:
    rows = [_place_cells(one, part.name) for part in severities for one in part.by_page if one.name]
    return ["## By page", table(_GROUP_HEADER, rows)] if rows else []


_GROUP_HEADER = ("", "frames", "mean IoU", f">= {GOOD_IOU}", "refused", "same answer")


def _place_cells(one: Group, part: str) -> tuple[object, ...]:
    place, agreement = one.localisation, one.reading.agreement if one.reading else "-"
    return f"{one.name}, {part}", place.n, _four(place.mean), place.at_least_095, one.abstention.refused, agreement


def _times(figures: CaptureFigures) -> str:
    times = figures.times
    rows: list[Sequence[object]] = [
        (stage, one.n, f"{one.median_ms:.2f}", f"{one.p95_ms:.2f}") for stage, one in times.stages.items()
    ]
    if times.geometry is not None:
        whole = times.geometry
        rows.append(("locate + rectify + photometry", whole.n, f"{whole.median_ms:.2f}", f"{whole.p95_ms:.2f}"))
        rows.append(("... divided by decode", whole.n, _number(times.ratio_median), _number(times.ratio_p95)))
    return "Accepted frames, one core; `decode` is the frame's own JPEG, in the same run.\n\n" + table(
        ("stage", "frames", "median ms", "95th percentile"), rows
    )


def _origin(record: CaptureRecord) -> str:
    made = record.origin
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    plan = (
        "" if record.plan is None else f"- seed {record.plan.seed}, {record.plan.shots} shot(s) a slice and severity\n"
    )
    return (
        f"- slices {record.data.slices_sha256[:12]}\n{plan}- commit {made.commit or 'unknown'}, {versions}\n"
        f"- {made.processor}, {made.threads} thread, {made.seconds:.0f} s in this session; "
        f"{made.resamples} resamples of patients"
    )


def _place(place: Localisation) -> str:
    return (
        f"IoU mean {_four(place.mean)}, 5th percentile {_four(place.p5)}, >= {GOOD_IOU}: {place.at_least_095}, "
        f"accepted although wrong {place.accepted_wrong}"
    )


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _sum(shares: Iterable[Share]) -> Share:
    told = list(shares)
    return Share(count=sum(one.count for one in told), of=sum(one.of for one in told))
