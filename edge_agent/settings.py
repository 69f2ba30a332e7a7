"""Everything about an edge agent that a site chooses; units stand in the names."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.develop import DevelopmentSettings
from edge_agent.outbox import Outbox, WhenFull
from protocol.chunks import MAX_MODEL_BYTES
from protocol.messages import ShortText
from protocol.topics import TopicId

KIB = 1024
MAX_KEPT_SLICES = 1_000
"""Of each label: four digits in a name."""
OUTBOX_FILE = "outbox.sqlite"
"""In the data folder."""


class ReplaySettings(BaseModel):
    """The `replay` source: a folder of PNG, JPEG or DICOM files, read in the order of their names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    folder: Path
    """Searched with its subfolders; a labels.csv in it (file, patient_id, source) tells whose each file is."""
    interval_s: float = Field(default=1.0, ge=0)
    """Time between two slices."""
    follow: bool = True
    """Go on watching the folder for new files after the last one."""


class EdgeSettings(BaseModel):
    """One edge box; its outbox, models and secrets live in `data_dir`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    site: TopicId
    """Part of every topic, `[a-z0-9-]{1,32}`; not `cloud` or `fleet`."""
    edge: TopicId
    """Part of every topic, `[a-z0-9-]{1,32}`; unique within the site."""
    data_dir: Path
    """Outbox, models and secrets; must survive a restart."""
    replay: ReplaySettings | None = None
    """A folder as the source of slices; set this or `webcam`."""
    webcam: WebcamSettings | None = None
    """A camera as the source of slices."""
    development: DevelopmentSettings = DevelopmentSettings()
    calibration_file: Path | None = None
    """Of this camera before this screen, as `sliceloop calibrate solve` writes it."""
    intake_file: Path | None = None
    """Network that tells whether a picture is an upright chest CT; default: the one that comes with the program."""
    trusted_keys_dir: Path
    """Holds the *.pub.json files of those who may sign releases, the first set; assign/ in it those of the workers."""
    trusted_threshold: int = Field(default=1, ge=1)
    """How many different trusted keys must have signed a release."""
    architectures: tuple[ShortText, ...] = ()
    """Networks that this box is fit for; none named: any."""
    patient_secret_file: Path | None = None
    """Shared by the edges of a site, so that they give a patient the same key; made in `data_dir` when not given."""
    send_originals: bool = True
    """Send the captured file too, besides the cropped slice."""
    send_dicom_originals: bool = False
    """DICOM files carry patient data; by default only the slice leaves the edge."""
    max_outbox_rows: int = Field(default=10_000, ge=1)
    """Bound of the outbox; beyond it no new slice is taken until receipts come."""
    max_outbox_bytes: int = Field(default=2 * KIB * KIB * KIB, ge=1)
    """Bound of the outbox in bytes of messages."""
    when_full: WhenFull = "refuse"
    """`refuse`: beyond the bound no new slice is taken; `drop-frames`: waiting originals give way, never a slice."""
    max_wait_s: float = Field(default=3600.0, gt=0)
    """A message that waited longer goes before younger ones, however urgent these are."""
    outbox_key_file: Path | None = None
    """Encrypts outbox and kept slices; `sliceloop keys outbox FILE` makes one. Without it what waits is lost."""
    max_file_bytes: int = Field(default=64 * KIB * KIB, ge=1)
    """A larger file is refused unread."""
    receipt_timeout_s: float = Field(default=15.0, gt=0)
    """Without a receipt after this time a message is published again."""
    max_inflight_bytes: int = Field(default=8 * KIB * KIB, ge=1)
    """Bytes of messages that may be without a receipt at once; broker.max_inflight bounds their number."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """How often the status is said when nothing changes."""
    shadow_slices: int = Field(default=20, ge=0)
    """Slices that a new model reads silently beside the one in use before it takes its place; 0: none."""
    probation_slices: int = Field(default=50, ge=1)
    """Slices that a new model must read without a fault, the one before it silently beside, before it is active."""
    kept_slices: int = Field(default=64, ge=0, le=MAX_KEPT_SLICES)
    """Of each label, one a patient, that stay in `data_dir` for a new model to read before the swap; 0: none."""
    trial_timeout_s: float = Field(default=120.0, gt=0)
    """A network that has not read its golden slices by then, in three trials, is refused."""
    max_model_bytes: int = Field(default=MAX_MODEL_BYTES, ge=1)
    """A release with larger files is refused unread."""
    max_download_bytes_per_s: float | None = Field(default=None, gt=0)
    """Of releases; without one, chunks that are published for all edges are heard too."""
    download_by_url: bool = True
    """Fetch by a presigned address where the worker offers one; what fails comes over MQTT."""
    chunk_timeout_s: float = Field(default=5.0, gt=0)
    """A chunk of a release that did not come by then is asked for again."""
    max_refused_bytes: int = Field(default=256 * KIB * KIB, ge=0)
    """Budget of the camera's refused pictures that are kept in `data_dir`; the oldest give way."""
    threads: int = Field(default=1, ge=1)
    """Threads of the network; one is fastest on a busy box."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.replay is None) == (self.webcam is None):
            raise ValueError("needs one source of slices: set replay.folder, or webcam, and not both")
        return self

    def outbox(self) -> Outbox:
        """Return this edge's outbox, not yet opened."""
        return Outbox(
            self.data_dir / OUTBOX_FILE,
            max_rows=self.max_outbox_rows,
            max_bytes=self.max_outbox_bytes,
            when_full=self.when_full,
            max_wait_s=self.max_wait_s,
            key_file=self.outbox_key_file,
        )
