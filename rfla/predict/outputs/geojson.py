"""Detections of a georeferenced raster as GeoJSON (RFC 7946): one polygon for each box.

Coordinates are those of the raster, whose system the member `crs` names as GDAL and QGIS read it,
or longitude and latitude in WGS84, which is what the RFC knows. Boxes of rotated rasters keep their
four corners.
"""

import json
from collections.abc import Iterator
from typing import Any

from rfla.data.georeference import Georeference
from rfla.predict.outputs.ground import GroundFile, ground_rings
from rfla.predict.outputs.output import parts_of
from rfla.results import Results


class GeoJson(GroundFile):
    """`town/a.geojson`: the boxes of a georeferenced raster."""

    choice, suffix = "geojson", ".geojson"

    def content(self, results: Results, place: Georeference, wgs84: bool) -> Iterator[str]:
        """Return the text of the file, in parts."""
        return to_geojson(results, place, wgs84)


def to_geojson(results: Results, place: Georeference, wgs84: bool = False) -> Iterator[str]:
    """Yield the detections of one image as the text of a GeoJSON FeatureCollection, in parts.

    Args:
        results: The detections.
        place: Of the image.
        wgs84: Longitude and latitude instead of the raster's coordinates.

    Raises:
        DataError: WGS84 of a raster without a coordinate reference system.
    """
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if not wgs84 and place.crs.startswith("EPSG:"):
        name = f"urn:ogc:def:crs:EPSG::{place.crs.removeprefix('EPSG:')}"
        head["crs"] = {"type": "name", "properties": {"name": name}}
    before = json.dumps(head)[:-1] + ', "features": [\n'
    for part in parts_of(results):
        rings = ground_rings(part, place, wgs84).tolist()
        columns = (rings, part.boxes.conf.tolist(), part.boxes.cls.tolist())
        features = [
            _feature(ring, score, label, part.names[label])
            for ring, score, label in zip(*columns, strict=True)
        ]
        yield before + ",\n".join(features)
        before = ",\n"
    yield "\n]}\n"


def _feature(ring: list[list[float]], score: float, label: int, name: str) -> str:
    return json.dumps(
        {
            "type": "Feature",
            "properties": {"name": name, "class": label, "confidence": round(score, 6)},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
    )
