"""A simulated webcam before a screen: photographs of slices, with the true place of the slice in them.

Light travels from the page (pages, overlays) through the display and its sub-pixels (display), the view (geometry),
the lens (optics) and the sensor (sensor) to the camera's processing (processing). Two families of parameters (families)
keep training apart from the benchmark. All of it is simulated: a figure made with it says nothing of a real webcam.
"""

from training.screen_camera.factors import Factor, Family
from training.screen_camera.scenes import EmptyScene, empty_scene
from training.screen_camera.shot import Shot, shoot

__all__ = ["EmptyScene", "Factor", "Family", "Shot", "empty_scene", "shoot"]
