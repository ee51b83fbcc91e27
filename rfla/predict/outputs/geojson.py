"""Detections of a georeferenced raster as GeoJSON (RFC 7946): one polygon for each box.

Coordinates are those of the raster, whose system the member `crs` names as GDAL and QGIS read it,
or longitude and latitude in WGS84, which is what the RFC knows. Boxes of rotated rasters keep their
four corners.
"""

import json
from typing import Any

from rfla.data.scenes import Georeference
from rfla.predict.outputs.ground import GroundFile, ground_rings
from rfla.results import Results

AT_A_TIME = 10_000  # features turned into text at once


class GeoJson(GroundFile):
    """`town/a.geojson`: the boxes of a georeferenced raster."""

    choice, suffix = "geojson", ".geojson"

    def content(self, results: Results, place: Georeference, wgs84: bool) -> str:
        """Return the text of the file."""
        return to_geojson(results, place, wgs84)


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
