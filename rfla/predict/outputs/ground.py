"""Boxes of a georeferenced raster on the ground: what GeoJSON and GeoPackage files share."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rfla.cfg import Config
from rfla.data.georeference import (
    Georeference,
    is_georeferenced,
    read_georeference,
    unwrapped,
)
from rfla.data.scenes import rasterio_or_none
from rfla.errors import DataError, extra_needed, installed
from rfla.files import write_atomically
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.results import Results


class GroundFile(Output):
    """One file for each image that says where it lies."""

    key = "geo"
    choice = ""  # the word of `geo=` that asks for it
    suffix = ""

    @classmethod
    def wanted(cls, cfg: Config) -> bool:
        """Whether it is among the formats."""
        return cfg.geo in (cls.choice, "both")

    def __init__(self, run_dir: Path, cfg: Config):
        super().__init__(run_dir, cfg)
        if {"geo", "geo_crs"} & cfg.given:
            installed("rasterio", f"geo={cfg.geo} needs it: {extra_needed('geo')}")

    def add(self, name: Name, results: Results) -> None:
        """Write one image's boxes, where the image says where it lies."""
        place = place_of(results)
        if place is None:
            self._note_missing_library(results)
            return
        try:
            content = self.content(results, place, self.cfg.geo_crs == "wgs84")
            write_atomically(self.path_of(name, self.suffix), content)
        except DataError as error:
            self.left_out.append(
                f"{results.path}: no {self.suffix} file: {error}; geo_crs=raster writes one"
            )

    def _note_missing_library(self, results: Results) -> None:
        path = Path(results.path)
        if rasterio_or_none() is None and results.frame is None and is_georeferenced(path):
            self.left_out.append(
                f"{path}: no {self.suffix} file: rasterio is not installed; {extra_needed('geo')}"
            )

    @abstractmethod
    def content(self, results: Results, place: Georeference, wgs84: bool) -> bytes | Iterable[str]:
        """Return what the file of an image holds."""


def place_of(results: Results) -> Georeference | None:
    """Return where an image lies; None where it does not say so, and for arrays and pages."""
    return read_georeference(Path(results.path)) if results.frame is None else None


def ground_rings(results: Results, place: Georeference, wgs84: bool) -> np.ndarray:
    """Return the corners of each box on the ground, (N, 5, 2) x and y, or longitude and latitude.

    Counter-clockwise, the first corner again at the end. Boxes of rotated rasters keep their four
    corners. A box on the antimeridian stays whole, with a longitude beyond 180 degrees.

    Raises:
        DataError: WGS84 of a raster without a coordinate reference system.
    """
    x1, y1, x2, y2 = results.boxes.xyxy.astype(np.float64).T
    # Counter-clockwise on the ground: rows run south, unless the transform mirrors them.
    columns, rows = np.stack([x1, x1, x2, x2, x1], 1), np.stack([y1, y2, y2, y1, y1], 1)
    a, b, _, d, e, _ = place.transform
    if a * e - b * d > 0:
        columns, rows = columns[:, ::-1], rows[:, ::-1]
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    points = place.to_wgs84(pixels) if wgs84 else place.to_raster(pixels)
    rings: np.ndarray = points.reshape(-1, 5, 2)
    return unwrapped(rings) if wgs84 else rings
