"""The data set that the package paints itself: brushes, objects, ground, places, and the writer."""

from rfla.tools.demo.write import ensure_demo, paint_scene, prepare_demo, write_demo

__all__ = ["ensure_demo", "paint_scene", "prepare_demo", "write_demo"]
