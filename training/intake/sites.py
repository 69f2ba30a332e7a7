"""Hospitals to learn from: scanners and viewers of every kind."""

from numpy.random import Generator

from training.data.phantom import PhantomSite

_WINDOWS_HU = (((-700, -350), (1100, 2000)), ((-750, -450), (2300, 3600)), ((-150, 60), (450, 1200)))
"""Ranges of level and width: lung windows, all that the scanner measured, and windows for soft tissue."""
_WINDOW_CHANCES = (0.6, 0.25, 0.15)


def drawn_site(rng: Generator) -> PhantomSite:
    """Draw a hospital: any window, sharpness, noise, field of view and table."""
    levels, widths = _WINDOWS_HU[rng.choice(len(_WINDOWS_HU), p=_WINDOW_CHANCES)]
    return PhantomSite(
        name="any",
        window_level_hu=rng.uniform(*levels),
        window_width_hu=rng.uniform(*widths),
        gamma=rng.uniform(0.7, 1.2),
        blur_px=rng.uniform(0.4, 1.6),
        sharpen=rng.uniform(0, 1.3),
        noise_hu=rng.uniform(5, 60),
        noise_grain_px=rng.uniform(0.5, 1.2),
        slab_mm=rng.uniform(1, 7),
        field_of_view_mm=(330, 500),
        offset_mm=(rng.uniform(-15, 15), rng.uniform(-25, 25)),
        curved_table=bool(rng.integers(2)),
        scan_circle=bool(rng.integers(2)),
    )
