"""Detections of a georeferenced raster as GeoJSON (RFC 7946): one polygon for each box.

Coordinates are those of the raster, whose system the member `crs` names as GDAL and QGIS read it,
or longitude and latitude in WGS84, which is what the RFC knows. Boxes of rotated rasters keep their
four corners.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rfla.cfg import Config
from rfla.data.scenes import Georeference, read_georeference
from rfla.files import write_atomically
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.results import Results

AT_A_TIME = 10_000  # features turned into text at once


class GeoJson(Output):
    """`town/a.geojson`: the boxes of a georeferenced raster."""

    key = "geo"

    @classmethod
    def wanted(cls, cfg: Config) -> bool:
        """Whether it is among the formats."""
        return cfg.geo in ("geojson", "both")

    def add(self, name: Name, results: Results) -> None:
        """Write one image's boxes, where the image says where it lies."""
        place = place_of(results)
        if place is not None:
            text = to_geojson(results, place, self.cfg.geo_crs == "wgs84")
            write_atomically(self.path_of(name, ".geojson"), text)


def place_of(results: Results) -> Georeference | None:
    """Return where an image lies; None where it does not say so, and for arrays and pages."""
    return read_georeference(Path(results.path)) if results.frame is None else None


def to_geojson(results: Results, place: Georeference, wgs84: bool = False) -> str:
    """Return the detections of one image as a GeoJSON FeatureCollection.

    Args:
        results: The detections.
        place: Of the image.
        wgs84: Longitude and latitude instead of the raster's coordinates.

    Raises:
        DataError: WGS84 of a raster without a coordinate reference system.
    """
    rings = ground_rings(results, place, wgs84)
    features = []
    for start in range(0, len(rings), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        features += [
            _feature(ring, float(score), int(label), results.names[int(label)])
            for ring, score, label in zip(
                rings[part].tolist(), results.boxes.conf[part], results.boxes.cls[part], strict=True
            )
        ]
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if not wgs84 and place.crs.startswith("EPSG:"):
        name = f"urn:ogc:def:crs:EPSG::{place.crs.removeprefix('EPSG:')}"
        head["crs"] = {"type": "name", "properties": {"name": name}}
    return json.dumps(head)[:-1] + ', "features": [\n' + ",\n".join(features) + "\n]}\n"


def _feature(ring: list[list[float]], score: float, label: int, name: str) -> str:
    return json.dumps(
        {
            "type": "Feature",
            "properties": {"name": name, "class": label, "confidence": round(score, 6)},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
    )


def ground_rings(results: Results, place: Georeference, wgs84: bool) -> np.ndarray:
    """Return the corners of each box on the ground, (N, 5, 2) x and y, or longitude and latitude.

    Counter-clockwise, the first corner again at the end. Boxes of rotated rasters keep their four
    corners.

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
    return rings
