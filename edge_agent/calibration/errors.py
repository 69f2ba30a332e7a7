"""What can be wrong with a photograph of the calibration page, or with a calibration file."""


class CalibrationError(ValueError):
    """No calibration comes of this; the message says why and what to do."""


class TagsNotFoundError(CalibrationError):
    """Not all four tags of the page are in view; `missing` names their corners."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        """Remember which corners of the page lack their tag."""
        super().__init__(
            f"no tag found at the page's {', '.join(missing)}: show the whole page, sharp, upright and without glare"
        )
        self.missing = missing


class PageMirroredError(CalibrationError):
    """The tags are mirrored, or stand around the page in the wrong order."""


class WedgeClippedError(CalibrationError):
    """Several grey levels came out alike because the camera's range ended; `levels` are the grey levels lost."""

    def __init__(self, levels: tuple[int, ...], *, bright: bool) -> None:
        """Remember which grey levels cannot be told apart."""
        what = "light greys are all white: lower" if bright else "dark greys are all black: raise"
        super().__init__(
            f"the page's {what} the exposure and take it again (levels {min(levels)} to {max(levels)} are lost)"
        )
        self.levels = levels


class WedgeFlatError(CalibrationError):
    """White and black of the page are too near to one another; `contrast` is white's light over black's."""

    def __init__(self, contrast: float) -> None:
        """Remember how little white is brighter than black."""
        super().__init__(
            f"the page's white is only {contrast:.1f} times as bright as its black: shade the screen from other light"
        )
        self.contrast = contrast


class WedgeDisturbedError(CalibrationError):
    """Equal greys differ over the page by more than a smooth illumination explains; `residual` in grey levels."""

    def __init__(self, residual: float) -> None:
        """Remember how far the patches are from the fitted curve."""
        super().__init__(
            f"equal greys of the page differ by {residual:.1f} levels (r.m.s.) after evening out the light: "
            "remove glare and shadows, and take it again"
        )
        self.residual = residual


class UnreadableCalibrationError(CalibrationError):
    """The file is no calibration of ours, or its values are outside their ranges."""


class UnknownCalibrationVersionError(CalibrationError):
    """The calibration was written by a newer program; `version` is the file's."""

    def __init__(self, version: int, known: int) -> None:
        """Remember the file's version."""
        super().__init__(
            f"the calibration has version {version}, this program knows {known}: update it, or calibrate again"
        )
        self.version = version
