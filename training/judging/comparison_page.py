"""comparison.md: the tables of a comparison, and the table of a leave-one-source-out run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from protocol.labels import LABELS
from training.evaluate import Evaluation
from training.judging.agreement import McNemar
from training.judging.comparison import BEST, Comparison, ModelRow
from training.judging.page import NO_WIDTH, shown, table

COMPARISON_PAGE = "comparison.md"
_SMALLEST_P = 0.001
_TEST_COLUMNS = ("slices only it / only the other has right", "p by slice", "patients", "p by patient")


def comparison_page(comparison: Comparison, plots: Iterable[Path]) -> str:
    """Return the Markdown of a comparison; the first line says so where one of its models is leaked."""
    parts = [
        *([f"**{comparison.leak.sentence()}**"] if comparison.leaked else []),
        f"# {len(comparison.models)} models on the {comparison.split} split",
        f"{comparison.n_slices} slices of {comparison.n_patients} patients, the same for all. In brackets 95 % "
        f"intervals from {comparison.origin.resamples} draws of patients.",
        "## Accuracy",
        _accuracy(comparison.models),
        "## Sensitivity by class, by slice",
        _classes(comparison.models),
        "## Balanced accuracy by source, by slice, over the classes of the source",
        _sources(comparison.models),
        NO_WIDTH,
        "## Fair comparisons",
        "Inside one origin, the likeliest of the classes that occur there; chance is one over their number.",
        _fair(comparison.models),
        "## Cost",
        _cost(comparison),
        f"## Differences from {comparison.reference}",
        _differences(comparison),
        "## Plots",
        *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in plots),
        "## Where this comes from",
        _origin(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def source_table(left_out: Mapping[str, Evaluation]) -> str:
    """Return the table of a leave-one-source-out run: for each source, the network that never saw it, judged on it."""
    rows = [
        (
            source,
            one.n_slices,
            one.n_patients,
            one.balanced_accuracy,
            *(one.by_class[label].sensitivity if label in one.by_class else None for label in LABELS),
            f"{one.calibration_error:.3f}",
        )
        for source, one in left_out.items()
    ]
    header = ("source left out of training", "slices", "patients", "balanced accuracy over its classes")
    return table((*header, *(f"sensitivity {label}" for label in LABELS), "ECE"), rows)


def _accuracy(models: Sequence[ModelRow]) -> str:
    rows = [
        (
            _name(row),
            row.record.by_slice.evaluation.balanced_accuracy,
            row.record.by_patient.evaluation.balanced_accuracy,
            row.record.by_slice.report.accuracy,
            row.record.by_slice.report.macro.f1,
            row.record.by_slice.calibration.error,
        )
        for row in models
    ]
    header = ("model", "balanced accuracy by slice", "by patient", "accuracy by slice", "macro F1", "ECE")
    return table(header, rows)


def _classes(models: Sequence[ModelRow]) -> str:
    rows = [
        (_name(row), *(row.record.by_slice.evaluation.by_class[label].sensitivity for label in LABELS))
        for row in models
    ]
    return table(("model", *LABELS), rows)


def _sources(models: Sequence[ModelRow]) -> str:
    first = models[0].record.by_slice.evaluation.by_source
    header = ("source", "slices", "patients", *(_name(row) for row in models))
    rows = [
        (
            source,
            one.n_slices,
            one.n_patients,
            *(
                shown(
                    row.record.by_slice.evaluation.by_source[source].balanced_accuracy,
                    min(row.record.data.patients[source].values()),
                )
                for row in models
            ),
        )
        for source, one in first.items()
    ]
    return table(header, rows)


def _fair(models: Sequence[ModelRow]) -> str:
    first = models[0].record.by_slice.fair
    rows = [
        (
            f"{name}: {' / '.join(one.labels)}",
            one.n,
            one.n_patients,
            *(shown(row.record.by_slice.fair[name].among_its_classes, one.fewest_patients) for row in models),
        )
        for name, one in first.items()
    ]
    header = ("origin", "slices", "patients", *(_name(row) for row in models))
    return table(header, rows) if rows else "No source has two classes."


def _cost(comparison: Comparison) -> str:
    rows = []
    for row in comparison.models:
        cost, latency = row.record.model.cost, row.latency
        times = ["not measured", "-", "-"]
        if latency is not None:
            times = [f"{ms:.2f}" for ms in (latency.median_ms, latency.p90_ms, latency.least_ms)]
        side, size = f"{row.record.model.input_px} px", f"{cost.file_bytes / 1e6:.2f}"
        rows.append((_name(row), side, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", size, *times))
    header = ("model", "input", "parameters", "million MACs", "MB as ONNX", "median ms", "p90 ms", "least ms")
    n = next((row.latency.n for row in comparison.models if row.latency), 0)
    return (
        f"{table(header, rows)}\n\nParameters and multiply-accumulates (MACs) are counted in the ONNX graph, up to the "
        f"logits. Milliseconds a slice at batch 1, one thread, onnxruntime, {comparison.origin.processor}; the models "
        f"took turns over {n} rounds in this run, so that they compare with each other better than with other runs."
    )


def _differences(comparison: Comparison) -> str:
    rows = [
        (
            pair.model,
            pair.by_slice.balanced_accuracy,
            pair.by_patient.balanced_accuracy,
            *_test(pair.mcnemar_by_slice),
            *_test(pair.mcnemar_by_patient),
        )
        for pair in comparison.pairs
    ]
    header = ("model", "balanced accuracy by slice", "by patient", *_TEST_COLUMNS)
    chosen = (
        f" {comparison.reference} was chosen as the best on these very slices, so that its lead is partly luck."
        if comparison.reference_chosen == BEST
        else ""
    )
    return (
        f"{table(header, rows)}\n\nAbove zero the model is better than {comparison.reference}; both see the same drawn "
        "patients. p: McNemar's exact test, two-sided, with Holm's correction over the rows. It asks for independent "
        "answers, and slices of a patient are not: by slice p is too small, by patient it holds. It is about accuracy, "
        f"not about balanced accuracy.{chosen}"
    )


def _test(test: McNemar) -> tuple[str, str]:
    p = f"{test.p_holm:.3f}" if test.p_holm >= _SMALLEST_P else f"< {_SMALLEST_P}"
    return f"{test.only_first_right} / {test.only_second_right}", p


def _name(row: ModelRow) -> str:
    return f"{row.name} (LEAKED)" if row.record.leaked else row.name


def _origin(comparison: Comparison) -> str:
    made = comparison.origin
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    checked = [f"- {row.name}: new patients? {row.record.leak.checked}" for row in comparison.models]
    return "\n".join(
        (
            *checked,
            f"- {versions}; commit {made.commit or 'not known'}; on {made.processor}",
            f"- slices sha256 {comparison.slices_sha256}",
            "- research use only",
        )
    )
