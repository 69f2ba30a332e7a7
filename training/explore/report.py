"""The exploration in words: report.md, and the same as one self-contained report.html."""

import base64
from collections.abc import Iterable, Mapping, Sequence

from markdown_it import MarkdownIt

from protocol.labels import LABELS
from training.data.labelled import SPLITS
from training.data.lungs import OUTER_BLACK_OF_LUNGS
from training.explore.counts import Count
from training.explore.differences import EVERYWHERE, LEAST_PATIENTS, RESAMPLES, Difference, Spread
from training.explore.findings import Findings
from training.explore.intensities import ALL_MEASURES, MEASURES, VERY_BRIGHT
from training.explore.plots import COUNTS, EFFECTS, INTENSITIES, SHORTCUTS, SHORTCUTS_WITHIN
from training.explore.sentences import counts_title, effects_title, intensities_title, shortcuts_title, within_title
from training.explore.shortcuts import COMPONENTS, FOLDS, Audit
from training.explore.shortcuts import RESAMPLES as AUDIT_RESAMPLES
from training.explore.verdicts import verdict
from training.explore.views import BORDER_SHARE, HISTOGRAM_BINS, SMALL_PX, View

REPORT_FILE, HTML_FILE, RESULTS_FILE = "report.md", "report.html", "results.json"
_SHOWN_P = 1e-4
"""Smaller p-values are shown as less than this; results.json has them all."""
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{border:1px solid #ddd;padding:.25rem .55rem}
th{background:#f5f5f5;text-align:left}img{max-width:100%}"""


def report_text(findings: Findings, plots: Iterable[str]) -> str:
    """Return the Markdown; `plots` are the pictures that exist, beside it."""
    drawn = frozenset(plots)
    parts = [
        *_head(findings),
        *_figure_1(findings, drawn),
        *_figure_2(findings, drawn),
        *_tests(findings, drawn),
        *_audit(findings, drawn),
        *_limits(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(text: str, plots: Mapping[str, bytes]) -> str:
    """Return the Markdown as one HTML page with its pictures inside."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    for name, png in plots.items():
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{base64.b64encode(png).decode()}"')
    head = f'<meta charset="utf-8"><title>Exploration</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _head(findings: Findings) -> list[str]:
    story = findings.story
    together = "; ".join(f"{name} = {', '.join(sources)}" for name, sources in story.together.items())
    return [
        f"**LEAKED: {story.leaked_patients} patients stand on two sides of this data set's split.** Nothing below uses "
        "the split, but whatever is trained on it and judged on it says nothing about new patients."
        if story.leaked_patients
        else "",
        f"# What {story.data} shows before any network is trained",
        "Research use only; nothing here is fit for diagnosis. The report holds no picture of a patient and no id.",
        f"{story.n_slices} slices of {story.n_patients} patients"
        + (f"; {story.unreadable} listed files could not be read" if story.unreadable else "")
        + (f". Taken as one source below Figure 1: {together}" if together else "")
        + f". Seed {story.seed}; list sha256 `{story.list_sha256[:16]}`; "
        + ", ".join(f"{name} {version}" for name, version in story.versions.items())
        + f"; commit {story.commit or 'not known'}.",
        "## In short",
        _bullets(
            [
                counts_title(findings.counts) + ".",
                *(intensities_title(findings, measure) + "." for measure in MEASURES),
                effects_title(findings) + ".",
                shortcuts_title(findings) + ".",
                within_title(findings) + ".",
            ]
        ),
    ]


def _figure_1(findings: Findings, drawn: frozenset[str]) -> list[str]:
    splits = [split for split in SPLITS if any(one.split == split for one in findings.counts)]
    cells = {(one.source, one.label, one.split): one for one in findings.counts}
    rows = [
        [source, label.value, *(_count(cells.get((source, label, split))) for split in splits)]
        for source in sorted({one.source for one in findings.counts})
        for label in LABELS
        if any((source, label, split) in cells for split in splits)
    ]
    return [
        "## Figure 1: slices and patients by source, class and split",
        _picture(COUNTS, drawn),
        _table(["source", "class", *(f"{split}: slices / patients" for split in splits)], rows),
    ]


def _figure_2(findings: Findings, drawn: frozenset[str]) -> list[str]:
    rows = []
    for measure in MEASURES:
        for one in findings.differences:
            if one.measure == measure.name:
                rows += [
                    [
                        measure.words,
                        one.stratum,
                        label.value,
                        str(g.n_patients),
                        _quartiles(g.median, g.low_quartile, g.high_quartile),
                    ]
                    for label, g in one.groups.items()
                ]
    return [
        "## Figure 2: brightness by class",
        _picture(INTENSITIES, drawn),
        f"Very bright is a grey level of {VERY_BRIGHT} or more: in the lung window (centre -600, width 1500 HU) that "
        "is 0 HU and above, as dense as water or denser. The threshold is ours. Sources with another window differ in "
        "it for reasons that are no disease. Both measures are taken inside the picture alone: the black with which "
        "slices are padded to 256 x 256 does not count, black inside the picture does (around the round field of view, "
        "around lungs that were cut out). A value is a patient's mean over its slices. "
        + (
            f"{findings.story.two_label_patients} patients with slices of two classes are left out, also of the tests."
            if findings.story.two_label_patients
            else "No patient has slices of two classes (they would be left out here and in the tests)."
        ),
        _table(["measure", "stratum", "class", "n patients", "median [quartiles]"], rows),
    ]


def _tests(findings: Findings, drawn: frozenset[str]) -> list[str]:
    main = {measure.name: measure.words for measure in MEASURES}
    found = [one for one in findings.differences if one.measure in main]
    return [
        "## Do the classes differ? Tests over patients",
        _picture(EFFECTS, drawn),
        "Kruskal-Wallis; epsilon squared is the share of the ranks' variance that the grouping tells (0 to 1). "
        "Between sources the same test is run whatever the class, to compare with.",
        _table(
            ["measure", "stratum", "groups", "n patients", "H", "p", "epsilon squared"],
            [row for one in found for row in _spread_rows(main[one.measure], one)],
        ),
        "Mann-Whitney by pair, two-sided, Holm-corrected within measure and stratum. Cliff's delta is P(first higher) "
        f"minus P(second higher), with a 95 % interval from {RESAMPLES} draws of patients within each class.",
        _table(
            ["measure", "stratum", "first", "second", "n first / second", "p (Holm)", "Cliff's delta"],
            [row for one in found for row in _pair_rows(main[one.measure], one)],
        ),
        f"Classes with fewer than {LEAST_PATIENTS} patients in a stratum are listed above but not tested.",
        "The same questions asked otherwise, over all sources (epsilon squared): does the answer hang on the "
        "threshold, or on the black around?",
        _table(["measure", "between classes", "between sources"], _other_rows(findings)),
    ]


def _audit(findings: Findings, drawn: frozenset[str]) -> list[str]:
    story = findings.story
    lungs = [
        [one.source, str(one.whole_body), str(one.lungs_only), str(one.lungs_not_found), _share(one.failed_share)]
        for one in findings.lungs
    ]
    return [
        "## Shortcut audit: what can a network cheat with?",
        _picture(SHORTCUTS, drawn),
        _picture(SHORTCUTS_WITHIN, drawn),
        f"A logistic regression, answers weighted evenly, on at most {COMPONENTS} standardised main components; "
        f"{FOLDS}-fold cross-validation grouped by patient and stratified by source and class, so each patient is "
        f"judged once by a classifier that never saw it; nothing is tuned. {story.audited_slices} slices of "
        f"{story.audited_patients} patients. Balanced accuracy by slice, 95 % interval from {AUDIT_RESAMPLES} draws of "
        "patients within each answer. A patient with slices of two classes counts with each slice's own class. What so "
        "simple a reader can tell is a floor: a network can tell more.",
        _bullets(_view_words()),
        "Lungs are found by thresholding and morphology. A slice with at least "
        f"{OUTER_BLACK_OF_LUNGS:.0%} black around is taken for lungs only: blacking its lungs out would leave nothing, "
        "so lungs-only slices are in no row with lungs blacked out or alone; those rows are on whole bodies in which "
        "lungs were found, and other views are shown on the same slices beside them.",
        _table(["source", "whole body, lungs found", "lungs only", "lungs not found", "share of bodies failed"], lungs),
        *(part for block in findings.audit.blocks() for part in _block(findings.audit, *block)),
        "Not asked, or with less:" if findings.audit.left_out else "",
        _bullets(findings.audit.left_out),
    ]


def _block(audit: Audit, target: str, population: str) -> list[str]:
    rows, rival = audit.rows_of(target, population), audit.best_without_lungs(target, population)
    first = rows[0]
    what = (
        f"### Telling the {first.target}: {first.population} ({first.n_slices} slices, {first.n_patients} patients; "
        f"{' / '.join(first.answers)}; chance {first.chance:.2f})"
    )
    cells = [
        [
            row.view.value,
            str(row.balanced_accuracy),
            ", ".join(f"{recall:.2f}" for recall in row.recall.values()),
            verdict(row, rival),
        ]
        for row in rows
    ]
    return [what, _table(["view", "balanced accuracy", "recall, in the order above", "verdict"], cells)]


def _limits() -> list[str]:
    return [
        "## What this cannot say",
        _bullets(
            [
                "That a border or a body without its lungs tells something proves no cheating, only the chance to. "
                "Body shape, arms and table may also go with age and how ill someone is.",
                "The outline of the lungs stays visible where they are blacked out. In slices that are lungs only, and "
                "where no lungs were found, the border holds lung.",
                "Source names are the data set's; two names may be one hospital, and one name several scanners.",
            ]
        ),
    ]


def _view_words() -> list[str]:
    return [
        f"{View.SOURCE.value}: what class and source being tied is worth, the mark that a network has to beat.",
        f"{View.CUT_OUT.value} as the lung search above tells it.",
        f"{View.BORDER.value}: the outer {BORDER_SHARE:.1%} of the picture on each side and the padding; the rest, and "
        f"the lungs where they were found, black; {SMALL_PX} px.",
        f"{View.NO_LUNGS.value}: with a margin, vessels and consolidations included, {SMALL_PX} px.",
        f"{View.HISTOGRAM.value}: {HISTOGRAM_BINS} bins of grey inside the picture.",
        f"{View.LUNGS.value}: everything but the lungs black, {SMALL_PX} px.",
        f"{View.WHOLE.value}: the reference.",
    ]


def _spread_rows(words: str, one: Difference) -> list[list[str]]:
    spreads = (("classes", one.classes), ("sources", one.sources))
    return [[words, one.stratum, f"between {what}", *_spread(spread)] for what, spread in spreads if spread is not None]


def _spread(one: Spread) -> list[str]:
    return [str(one.n_patients), f"{one.statistic:.1f}", _p(one.p_value), f"{one.epsilon_squared:.3f}"]


def _pair_rows(words: str, one: Difference) -> list[list[str]]:
    return [
        [
            words,
            one.stratum,
            pair.first.value,
            pair.second.value,
            f"{one.groups[pair.first].n_patients} / {one.groups[pair.second].n_patients}",
            _p(pair.p_holm),
            str(pair.cliffs_delta),
        ]
        for pair in one.pairs
    ]


def _other_rows(findings: Findings) -> list[list[str]]:
    found = [(measure.words, findings.difference(measure.name, EVERYWHERE)) for measure in ALL_MEASURES]
    return [[words, _epsilon(one.classes), _epsilon(one.sources)] for words, one in found if one is not None]


def _epsilon(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.epsilon_squared:.3f}"


def _quartiles(median: float, low: float, high: float) -> str:
    digits = 1 if median >= 1 else 3
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _count(one: Count | None) -> str:
    return "–" if one is None else f"{one.n_slices} / {one.n_patients}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _p(value: float) -> str:
    return f"< {_SHOWN_P}" if value < _SHOWN_P else f"{value:.4f}"


def _picture(name: str, drawn: frozenset[str]) -> str:
    return f"![{name.removesuffix('.png')}]({name})" if name in drawn else ""


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
