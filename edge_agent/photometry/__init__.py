"""Photometry: from a rectified photograph of a slice back to the digital slice's greys, as near as references allow."""

from edge_agent.photometry.margin import MARGIN, with_margin
from edge_agent.photometry.restore import Place, restore

__all__ = ["MARGIN", "Place", "restore", "with_margin"]
