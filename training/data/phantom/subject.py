"""A subject: all that the slices of one patient share."""

from dataclasses import dataclass

from protocol.labels import Label
from training.data.phantom.anatomy import Anatomy, draw_anatomy
from training.data.phantom.clouds import Clouds, draw_clouds
from training.data.phantom.diseases import DISEASES
from training.data.phantom.lesion import Lesion
from training.data.phantom.seeds import rng_for
from training.data.phantom.sites import PhantomSite
from training.data.phantom.vessels import Vessels, draw_vessels


@dataclass(frozen=True)
class Subject:
    """A patient before any slice is painted."""

    key: tuple[int, str, int]  # seed, site and number: what its random numbers come from
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    vessels: Vessels
    clouds: Clouds


def draw_subject(seed: int, site: PhantomSite, label: Label, patient: int) -> Subject:
    """Draw a patient; the disease has numbers of its own, so that the label changes nothing else."""
    key = (seed, site.name, patient)
    rng = rng_for(*key, "anatomy")
    anatomy = draw_anatomy(rng, site)
    return Subject(
        key=key,
        anatomy=anatomy,
        lesions=DISEASES[label](rng_for(*key, "disease"), anatomy.body),
        vessels=draw_vessels(rng, anatomy.body),
        clouds=draw_clouds(rng),
    )
