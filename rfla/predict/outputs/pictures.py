"""Annotated pictures, and the pixels of each box."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rfla.cfg import Config
from rfla.data.images import Image
from rfla.data.pixel_range import range_of
from rfla.data.scenes import open_scene
from rfla.data.tiles import Window
from rfla.pictures.boxes import write_picture
from rfla.pictures.scene import Scene, densest_places, draw_scene
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.results import Results

LARGEST = 3000  # px: long side of images that are drawn whole


def write_annotated(path: Path, results: Results, cfg: Config) -> None:
    """Write the picture of an image with its boxes, as the settings draw it."""
    if max(results.orig_shape) > LARGEST and cfg.scale is None:
        write_picture(path, scene_sheet(results, cfg))
        return
    results.save(path, cfg.line_width, cfg.show_labels, legend=cfg.legend, scale=cfg.scale)


def scene_sheet(results: Results, cfg: Config) -> Image:
    """Return the overview of a scene with its densest places at full size, bounded in size."""
    found = results.boxes
    scene = Scene(found.xyxy, found.cls, found.conf, results.names, results.orig_shape)
    places = densest_places(scene)
    windows = [(x1, y1, x2, y2) for x1, y1, x2, y2 in places.tolist()]
    crops = list(_pixels_of(results, windows, cfg))
    how = (cfg.line_width, cfg.show_labels)
    return draw_scene(results.orig_img, scene, places, crops, *how, legend=cfg.legend)


def _pixels_of(results: Results, windows: Iterable[Window], cfg: Config) -> Iterator[Image]:
    """Yield parts of an image at full size; of one that was read by windows, from its file."""
    if not results.is_reduced:
        yield from (results.orig_img[y1:y2, x1:x2] for x1, y1, x2, y2 in windows)
        return
    with open_scene(Path(results.path), range_of(cfg.normalize)) as scene:
        yield from (scene.read(window) for window in windows)


class Pictures(Output):
    """`town/a.png`: the image with its boxes; not of frames that go into a video.

    Of a scene it is an overview with the densest places enlarged, unless `scale=` is given.
    """

    key = "save"

    def add(self, name: Name, results: Results) -> None:
        """Write one picture."""
        if name.frame_of is None or not self.cfg.save_video:
            write_annotated(self.path_of(name, ".png"), results, self.cfg)


class Crops(Output):
    """`crops/CLASS/town/a_1.png`: the pixels of each box."""

    key = "save_crop"

    def add(self, name: Name, results: Results) -> None:
        """Write the boxes of one image."""
        crops = results.crops(self.run_dir / "crops", str(name.stem))
        parts = _pixels_of(results, [window for _, window in crops], self.cfg)
        for (path, _), pixels in zip(crops, parts, strict=True):
            write_picture(path, np.ascontiguousarray(pixels))
