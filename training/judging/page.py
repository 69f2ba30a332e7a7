"""report.md: one evaluation to read, each figure with its n and its interval."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from protocol.labels import LABELS
from training.evaluate import Estimate
from training.judging.figures import Averages, ClassificationReport, Judgement
from training.judging.record import Record

REPORT_FILE = "report.md"
NO_WIDTH = (
    "An interval without width says that all answers were right, or all wrong, not that the figure is certain: "
    "with n patients it may still be some 3/n away (the rule of three)."
)


def evaluation_page(record: Record, plots: Iterable[Path]) -> str:
    """Return the Markdown of an evaluation; the first line of a leaked one says so."""
    model, data, slices, patients = record.model, record.data, record.by_slice, record.by_patient
    parts = [
        *([f"**{record.leak.sentence()}**"] if record.leaked else []),
        f"# {model.name} on the {data.split} split",
        _what(record),
        "## Classification report",
        f"By slice ({data.n_slices} slices of {data.n_patients} patients):",
        f"```\n{as_text(slices.report)}\n```",
        f"By patient ({data.n_patients} patients; a patient's answer is the mean over its slices):",
        f"```\n{as_text(patients.report)}\n```",
        "The same with 95 % intervals, from drawing patients:",
        *(_report_table(one) for one in (slices, patients)),
        "## Balanced accuracy",
        _balanced_table(record),
        NO_WIDTH,
        "## Fair comparisons",
        "Inside one origin the style of a source gives nothing away. The last but one column takes the likeliest of "
        "the classes that occur there; chance is one over their number.",
        *(_fair_table(one) for one in (slices, patients)),
        "## Curves",
        *(_ranking_table(one) for one in (slices, patients)),
        "## Calibration",
        _calibration(record),
        "## Abstaining",
        _abstention(slices, patients),
        "## Plots",
        *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in plots),
        "## Where this comes from",
        _origin(record),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; the first column is text, the others are set to the right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def shown(estimate: Estimate, fewest_patients: int) -> str:
    """Return the figure with its interval, or without where one patient is all that a class has."""
    return str(estimate) if fewest_patients > 1 else f"{estimate.value:.3f} (1 patient in a class: no interval)"


def as_text(report: ClassificationReport) -> str:
    """Return the table in the form of scikit-learn's classification_report (three digits)."""
    width = max(len("weighted avg"), *(len(label) for label in LABELS))
    lines = [" " * width + " " + "".join(f" {name:>9}" for name in ("precision", "recall", "f1-score", "support")), ""]
    lines += [_line(width, label, one, one.support) for label, one in report.by_class.items()]
    lines += ["", f"{'accuracy':>{width}} " + " " * 20 + f" {report.accuracy.value:>9.3f} {report.n:>9}"]
    lines += [
        _line(width, "macro avg", report.macro, report.n),
        _line(width, "weighted avg", report.weighted, report.n),
    ]
    return "\n".join(lines)


def _line(width: int, name: str, one: Averages, support: int) -> str:
    values = "".join(f" {estimate.value:>9.3f}" for estimate in (one.precision, one.recall, one.f1))
    return f"{name:>{width}} {values} {support:>9}"


def _what(record: Record) -> str:
    model, data, cost = record.model, record.data, record.model.cost
    lines = [
        f"- network: {model.architecture} at {model.input_px} px, {cost.parameters:,} parameters, "
        f"{cost.macs / 1e6:,.1f} million multiply-accumulates a slice, {cost.file_bytes / 1e6:.2f} MB as ONNX",
        f"- learnt from: {_learnt(record)}",
        f"- judged on: {data.n_slices} slices of {data.n_patients} patients, sources {', '.join(data.sources)}"
        + (f" (left out: {', '.join(data.excluded_sources)})" if data.excluded_sources else ""),
        f"- whether these patients are new to it: {record.leak.checked}",
    ]
    absent = [label for label in LABELS if label not in record.by_slice.report.by_class]
    if absent:
        lines.append(f"- **no slice of {', '.join(absent)}**: figures are over the other classes alone")
    if data.split == "val":
        lines.append("- **validation chose this network's epoch and temperature**: its figures are too good")
    return "\n".join(lines)


def _learnt(record: Record) -> str:
    model = record.model
    if model.n_train_slices is None:
        return "not known (weights from elsewhere)"
    return (
        f"{model.n_train_slices} slices of {model.n_train_patients} patients, sources {', '.join(model.train_sources)}"
    )


def _report_table(judgement: Judgement) -> str:
    report = judgement.report
    rows: list[Sequence[object]] = [
        (label, one.precision, one.recall, one.f1, one.support) for label, one in report.by_class.items()
    ]
    rows.append(("accuracy", "", "", report.accuracy, report.n))
    for name, average in (("macro avg", report.macro), ("weighted avg", report.weighted)):
        rows.append((name, average.precision, average.recall, average.f1, report.n))
    return table((f"by {judgement.unit}", "precision", "recall", "F1", "support"), rows)


def _balanced_table(record: Record) -> str:
    by_slice, by_patient = record.by_slice.evaluation, record.by_patient.evaluation
    rows: list[Sequence[object]] = [
        ("all", by_slice.n_slices, by_slice.n_patients, "", by_slice.balanced_accuracy, by_patient.balanced_accuracy)
    ]
    for source, one in by_slice.by_source.items():
        other = by_patient.by_source.get(source)
        classes = ", ".join(f"{label} {estimate.value:.2f}" for label, estimate in one.sensitivity.items())
        fewest = min(record.data.patients[source].values())
        cells = [each and shown(each.balanced_accuracy, fewest) for each in (one, other)]
        rows.append((source, one.n_slices, one.n_patients, classes, *cells))
    return table(("source", "slices", "patients", "sensitivity by slice", "by slice", "by patient"), rows)


def _fair_table(judgement: Judgement) -> str:
    rows = [
        (
            f"{name}: {' / '.join(one.labels)}",
            one.n,
            one.n_patients,
            shown(one.balanced_accuracy, one.fewest_patients),
            shown(one.among_its_classes, one.fewest_patients),
            one.auroc,
        )
        for name, one in judgement.fair.items()
    ]
    header = (f"by {judgement.unit}", "n", "patients", "balanced accuracy", "among its classes", "AUROC")
    return table(header, rows) if rows else f"By {judgement.unit}: no source has two classes."


def _ranking_table(judgement: Judgement) -> str:
    rows = [
        (label, one.n_positive, one.n_negative, one.average_precision, one.auroc)
        for label, one in judgement.ranking.items()
    ]
    return table((f"by {judgement.unit}", "of the class", "others", "average precision", "AUROC"), rows)


def _calibration(record: Record) -> str:
    figures, by_patient = record.by_slice.calibration, record.by_patient.calibration
    if record.model.temperature_fitted:
        how = f"Temperature {figures.temperature:.3f}, fitted on the validation slices when the network was trained."
    else:
        how = "Temperature 1: none was fitted for these weights."
    without = "" if figures.error_without is None else f"; at temperature 1 it would be {figures.error_without}"
    return (
        f"{how} Expected calibration error by slice {figures.error} (n {record.data.n_slices}){without}; "
        f"by patient {by_patient.error} (n {record.data.n_patients}). Few answers make it too large, and drawing them "
        f"anew larger still. Log loss by slice {record.by_slice.evaluation.log_loss:.3f} nats."
    )


def _abstention(slices: Judgement, patients: Judgement) -> str:
    risks = (slices.risk_coverage, patients.risk_coverage)
    rows: list[Sequence[object]] = [
        (f"{one.error:.0%}", one.abstained, other.abstained)
        for one, other in zip(risks[0].abstention, risks[1].abstention, strict=True)
    ]
    own = risks[0].own_threshold
    error: Estimate | str = own.error or "-"
    return (
        "The share of answers to give up, the least sure first, so that at most so many of the others are wrong "
        "(1: no threshold gives that). Looked up on these very answers, so that new ones will cost more.\n\n"
        f"{table(('at most wrong', 'by slice', 'by patient'), rows)}\n\n"
        f"Wrong without abstaining: {risks[0].error_of_all} by slice, {risks[1].error_of_all} by patient. "
        f"At the model's own threshold, a confidence of {own.uncertain_below:g}: {own.answered} of the slices "
        f"answered, {error} of those wrong. Mean error over all shares: {risks[0].area} by slice, "
        f"{risks[1].area} by patient."
    )


def _origin(record: Record) -> str:
    made = record.origin
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    return "\n".join(
        (
            f"- intervals: 95 %, {made.resamples} draws of patients within their class, seed {made.seed}",
            f"- read in {made.seconds:.1f} s on {made.processor}, {made.threads} thread(s), by onnxruntime",
            f"- {versions}; commit {made.commit or 'not known'}",
            f"- model sha256 {record.model.sha256}",
            f"- slices sha256 {record.data.slices_sha256} (the same for evaluations that can be compared)",
            "- research use only",
        )
    )
