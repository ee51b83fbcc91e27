"""Detections of a georeferenced raster as a GeoPackage (OGC 12-128r18): one polygon for each box.

A GeoPackage is an SQLite file with tables that the standard names. Coordinates are x then y, and
longitude then latitude, whatever the order of axes of the reference system: so the standard wants.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from rfla.data.georeference import Georeference
from rfla.predict.outputs.ground import GroundFile, ground_rings
from rfla.results import Results

APPLICATION, VERSION = 0x47504B47, 10300  # "GPKG", 1.3
UNKNOWN = -1  # the standard's number for a cartesian system that nobody named
OWN = 100_000  # ours for one that has no EPSG code
WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)
TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (
    srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (
    table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '',
    last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
    FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE gpkg_geometry_columns (
    table_name TEXT NOT NULL UNIQUE, column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    PRIMARY KEY (table_name, column_name),
    FOREIGN KEY (table_name) REFERENCES gpkg_contents (table_name),
    FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE detections (
    fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON,
    name TEXT, class INTEGER, confidence REAL);
"""
# A polygon of one ring of five points: GeoPackage's head, then well-known binary, little-endian.
GEOMETRY = np.dtype(
    [
        *(("magic", "S2"), ("version", "u1"), ("flags", "u1"), ("srs", "<i4")),
        ("envelope", "<f8", 4),
        *(("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")),
        ("ring", "<f8", (5, 2)),
    ]
)
ENVELOPE_XY, LITTLE_ENDIAN, POLYGON = 0b0010, 1, 3


class Reference(NamedTuple):
    """A coordinate reference system as the table of them holds it."""

    name: str
    number: int
    organization: str
    code: int
    definition: str


FIXED = (
    Reference("Undefined cartesian SRS", UNKNOWN, "NONE", UNKNOWN, "undefined"),
    Reference("Undefined geographic SRS", 0, "NONE", 0, "undefined"),
    Reference("WGS 84", 4326, "EPSG", 4326, WGS84),
)


class GeoPackage(GroundFile):
    """`town/a.gpkg`: the boxes of a georeferenced raster, in the table `detections`."""

    choice, suffix = "gpkg", ".gpkg"

    def content(self, results: Results, place: Georeference, wgs84: bool) -> bytes:
        """Return the bytes of the file."""
        return to_geopackage(results, place, wgs84)


def to_geopackage(results: Results, place: Georeference, wgs84: bool = False) -> bytes:
    """Return the detections of one image as the bytes of a GeoPackage.

    Args:
        results: The detections.
        place: Of the image.
        wgs84: Longitude and latitude instead of the raster's coordinates.

    Raises:
        DataError: WGS84 of a raster without a coordinate reference system.
    """
    rings = ground_rings(results, place, wgs84)
    reference = FIXED[2] if wgs84 else _reference(place)
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute(f"PRAGMA application_id = {APPLICATION}")
        base.execute(f"PRAGMA user_version = {VERSION}")
        base.executescript(TABLES)
        systems = {system.number: system for system in (*FIXED, reference)}
        base.executemany(
            "INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, NULL)", systems.values()
        )
        corners = rings.reshape(-1, 2)
        extent = [None] * 4 if not len(rings) else [*corners.min(axis=0), *corners.max(axis=0)]
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, "
            "max_y, srs_id) VALUES ('detections', 'features', 'detections', ?, ?, ?, ?, ?)",
            [*extent, reference.number],
        )
        base.execute(
            "INSERT INTO gpkg_geometry_columns VALUES ('detections', 'geom', 'POLYGON', ?, 0, 0)",
            [reference.number],
        )
        base.executemany(
            "INSERT INTO detections (geom, name, class, confidence) VALUES (?, ?, ?, ?)",
            _features(results, rings, reference.number),
        )
        base.commit()
        return base.serialize()


def _reference(place: Georeference) -> Reference:
    """Return the system of a raster."""
    if not place.crs:
        return FIXED[0]
    if place.crs.startswith("EPSG:"):
        code = int(place.crs.removeprefix("EPSG:"))
        return Reference(place.crs, code, "EPSG", code, place.wkt)
    return Reference("system of the raster", OWN, "NONE", OWN, place.wkt)


def _features(results: Results, rings: np.ndarray, srs: int) -> Iterator[tuple[Any, ...]]:
    """Yield geometry, name, class and confidence of each box."""
    shapes = np.zeros(len(rings), GEOMETRY)
    shapes["magic"], shapes["flags"], shapes["srs"] = b"GP", ENVELOPE_XY | LITTLE_ENDIAN, srs
    low, high = rings.min(axis=1, initial=np.inf), rings.max(axis=1, initial=-np.inf)
    shapes["envelope"] = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    shapes["order"], shapes["type"] = LITTLE_ENDIAN, POLYGON
    shapes["rings"], shapes["points"], shapes["ring"] = 1, 5, rings
    columns = (results.boxes.cls.tolist(), results.boxes.conf.tolist())
    for shape, label, score in zip(shapes, *columns, strict=True):
        yield shape.tobytes(), results.names[label], label, round(score, 6)
