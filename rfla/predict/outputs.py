"""The files of a prediction: pictures, YOLO text, crops, and one COCO file of all boxes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfla.cfg import Config
from rfla.data.scenes import read_georeference
from rfla.files import write_atomically
from rfla.predict.geojson import to_geojson
from rfla.predict.sources import SourceImage, output_names
from rfla.results import Results

Rows = dict[int, list[dict[str, Any]]]


class Outputs:
    """Writes the results of images as they come, into a run directory.

    Images are named in `predictions.json` by their place below the source, suffix included
    (`town/a.png`): `rfla val predictions=` and `rfla compare` find them by that.

    Args:
        run_dir: Exists, and is ours.
        images: All images of the source, in order.
        cfg: What is written, and how pictures are drawn.
    """

    def __init__(self, run_dir: Path, images: Sequence[SourceImage], cfg: Config):
        self.run_dir, self.cfg = run_dir, cfg
        self.rows: Rows = {}  # by the image's place in the source
        self._places = {
            image.name: (place, name, image.relative.as_posix())
            for place, (image, name) in enumerate(zip(images, output_names(images), strict=True))
        }

    def write(self, results: Results) -> None:
        """Write one image's picture, text and crops, as the settings ask."""
        place, name, identity = self._places[results.path]
        self.rows[place] = results.to_coco(identity)
        if self.cfg.save:
            picture = self.run_dir / name.with_name(f"{name.name}.png")
            results.save(
                picture,
                self.cfg.line_width,
                self.cfg.show_labels,
                legend=self.cfg.legend,
                scale=self.cfg.scale,
            )
        if self.cfg.save_txt:
            text = self.run_dir / "labels" / name.with_name(f"{name.name}.txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            results.save_txt(text, self.cfg.save_conf)
        self._write_geojson(results, self.run_dir / name.with_name(f"{name.name}.geojson"))
        if self.cfg.save_crop:
            results.save_crop(self.run_dir / "crops", str(name))

    def _write_geojson(self, results: Results, path: Path) -> None:
        """Write the boxes in coordinates of the ground, where the image says where it lies."""
        place = None if self.cfg.geojson == "off" else read_georeference(Path(results.path))
        if place is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_geojson(results, place, self.cfg.geojson == "wgs84"))


def write_predictions(run_dir: Path, shards: Iterable[Mapping[int, list[dict[str, Any]]]]) -> int:
    """Write `predictions.json` from the rows of all processes; return the number of boxes."""
    rows = {place: found for shard in shards for place, found in shard.items()}
    flat = [row for place in sorted(rows) for row in rows[place]]
    write_atomically(run_dir / "predictions.json", json.dumps(flat))
    return len(flat)
