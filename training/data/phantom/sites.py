"""Sites: two hospitals whose scanners and viewers make the same patient look different."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PhantomSite:
    """What a hospital's scanner and viewer do to every slice."""

    name: str
    window_level_hu: float
    window_width_hu: float
    gamma: float
    blur_px: float
    sharpen: float  # weight of the unsharp mask: overshoot at edges, as edge-enhancing kernels do
    noise_hu: float
    noise_grain_px: float
    slab_mm: float  # slice thickness
    field_of_view_mm: tuple[float, float]
    offset_mm: tuple[float, float]
    curved_table: bool
    scan_circle: bool  # outside the reconstruction circle the picture is black


SITES: dict[str, PhantomSite] = {
    site.name: site
    for site in (
        PhantomSite(
            name="site-a",
            window_level_hu=-600,
            window_width_hu=1500,
            gamma=1.0,
            blur_px=0.9,
            sharpen=0.0,
            noise_hu=22,
            noise_grain_px=0.9,
            slab_mm=5.0,
            field_of_view_mm=(355, 395),
            offset_mm=(0, 8),
            curved_table=True,
            scan_circle=False,
        ),
        PhantomSite(
            name="site-b",
            window_level_hu=-450,
            window_width_hu=1900,
            gamma=0.85,
            blur_px=0.5,
            sharpen=1.3,
            noise_hu=40,
            noise_grain_px=0.6,
            slab_mm=1.5,
            field_of_view_mm=(410, 470),
            offset_mm=(8, -6),
            curved_table=False,
            scan_circle=True,
        ),
    )
}
