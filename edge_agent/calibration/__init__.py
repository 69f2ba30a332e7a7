"""Calibration: what one photograph of a known page says of display, lens and camera, and the file that keeps it."""

from edge_agent.calibration.errors import CalibrationError
from edge_agent.calibration.page import draw_page
from edge_agent.calibration.record import Calibration, parse_calibration
from edge_agent.calibration.solve import solve

__all__ = ["Calibration", "CalibrationError", "draw_page", "parse_calibration", "solve"]
