"""The data set that the package paints itself: brushes, objects, ground, places, and the writer."""

from rfla.data.demo.write import ensure_demo, paint_scene, write_demo

__all__ = ["ensure_demo", "paint_scene", "write_demo"]
