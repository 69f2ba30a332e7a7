"""The whole screen: which panels there is room for, and where they stand."""

from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from cloud_worker.dashboard.counts import counts_line, counts_strip
from cloud_worker.dashboard.edge_table import edges_panel
from cloud_worker.dashboard.frame import Size
from cloud_worker.dashboard.header import HEIGHT as HEADER_HEIGHT
from cloud_worker.dashboard.header import header, trouble_lines
from cloud_worker.dashboard.last_slice import picture_panel
from cloud_worker.dashboard.learning import models_panel, training_panel
from cloud_worker.dashboard.palette import BACKGROUND, INK
from cloud_worker.dashboard.slice_table import slices_panel
from cloud_worker.dashboard.state import DashboardState

WIDE = 100
MIN_WIDTH_FOR_TRAINING = 72
MIN_HEIGHT_FOR_PICTURE = 28
MIN_HEIGHT_FOR_MODELS = 32
BOTTOM_ROWS = ((50, 11), (32, 9), (16, 7))
"""From which height of the screen on the panels at the bottom have how many rows."""
MODELS_ROWS = 6
COUNTS_ROWS = 3
ROOM_FOR_COUNTS = 12
EDGES_SHARE, TRAINING_SHARE = 0.44, 0.26
EDGES_SHARE_OF_TWO = 0.64
MIN_SLICES_HEIGHT = 3
MAX_PICTURE_SHARE = 0.42
PICTURE_FRAME = 4
CAPTION_LINES = 4


@dataclass(frozen=True)
class Plan:
    """How the rows of the screen are shared out; 0 leaves a part away."""

    counts: int
    slices: int
    bottom: int
    models: int
    picture_width: int


def render(state: DashboardState, now: datetime, width: int, height: int) -> RenderableType:
    """Return the dashboard for a screen of this size; times are shown in the zone of `now`."""
    trouble = trouble_lines(state, width, height)
    plan = plan_for(width, height - len(trouble))
    rows = state.newest_slices(max(1, plan.slices))
    parts: list[RenderableType] = [header(state, rows, now, width), *trouble]
    if plan.counts:
        parts.append(counts_strip(state, width) if plan.counts > 1 else counts_line(state, width))
    if plan.slices:
        slices = slices_panel(state, rows, now, Size(width - plan.picture_width, plan.slices))
        picture = picture_panel(state, now, Size(plan.picture_width, plan.slices)) if plan.picture_width else None
        parts.append(_beside(slices, picture))
    if plan.bottom:
        parts.append(_bottom(state, now, width, plan.bottom))
    if plan.models:
        parts.append(models_panel(state, now, Size(width, plan.models)))
    return Styled(Group(*parts), f"{INK} on {BACKGROUND}")


def plan_for(width: int, height: int) -> Plan:
    """Share out the rows: first the slices, then counts, edges, training, models, and last the picture."""
    wide = width >= WIDE
    bottom = next((rows for least, rows in BOTTOM_ROWS if height >= least), 0)
    models = MODELS_ROWS if not wide and height >= MIN_HEIGHT_FOR_MODELS else 0
    left = height - HEADER_HEIGHT - bottom - models
    counts = COUNTS_ROWS if wide and left >= ROOM_FOR_COUNTS else int(left > MIN_SLICES_HEIGHT)
    slices = max(0, left - counts)
    picture = wide and height >= MIN_HEIGHT_FOR_PICTURE
    picture_width = min(int(width * MAX_PICTURE_SHARE), 2 * (slices - CAPTION_LINES) + PICTURE_FRAME) if picture else 0
    return Plan(counts, slices if slices >= MIN_SLICES_HEIGHT else 0, bottom, models, picture_width)


def _bottom(state: DashboardState, now: datetime, width: int, height: int) -> RenderableType:
    if width >= WIDE:
        edges, training = int(width * EDGES_SHARE), int(width * TRAINING_SHARE)
        return _beside(
            edges_panel(state, now, Size(edges, height)),
            training_panel(state, Size(training, height)),
            models_panel(state, now, Size(width - edges - training, height)),
        )
    if width < MIN_WIDTH_FOR_TRAINING:
        return edges_panel(state, now, Size(width, height))
    edges = int(width * EDGES_SHARE_OF_TWO)
    training_size = Size(width - edges, height)
    return _beside(edges_panel(state, now, Size(edges, height)), training_panel(state, training_size))


def _beside(*panels: RenderableType | None) -> RenderableType:
    shown = [panel for panel in panels if panel is not None]
    grid = Table.grid(padding=0)
    for _ in shown:
        grid.add_column()
    grid.add_row(*shown)
    return grid
