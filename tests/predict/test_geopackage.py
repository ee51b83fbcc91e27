"""GeoPackages, read back by GDAL: geometry, attributes, systems and the order of axes.

rasterio reads rasters alone, so the GDAL that it brings along is called directly.
"""

import ctypes
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rfla.cfg import load_config
from rfla.data.georeference import Georeference
from rfla.errors import DataError
from rfla.predict.command import predict
from rfla.predict.outputs.geopackage import to_geopackage
from rfla.results import Boxes, Results

rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")

VECTOR = 4  # GDAL_OF_VECTOR


class Layer(NamedTuple):
    """One layer: features as (WKT, fields), and the EPSG code and WKT of its system."""

    name: str
    features: list[tuple[str, dict[str, str]]]
    epsg: str
    wkt: str
    extent: tuple[float, ...]


def gdal() -> ctypes.CDLL:
    (library,) = Path(rasterio.__file__).parents[1].glob("rasterio.libs/libgdal*")
    found = ctypes.CDLL(str(library))
    for name in (
        *("GDALOpenEx", "GDALDatasetGetLayer", "OGR_L_GetNextFeature", "OGR_F_GetGeometryRef"),
        *("OGR_L_GetSpatialRef", "OGR_F_GetFieldDefnRef"),
    ):
        getattr(found, name).restype = ctypes.c_void_p
    for name in (
        *("OGR_Fld_GetNameRef", "OGR_F_GetFieldAsString", "OGR_L_GetName"),
        *("OSRGetAuthorityCode",),
    ):
        getattr(found, name).restype = ctypes.c_char_p
    return found


def read_layer(path: Path) -> Layer:
    """Read the first layer of a vector file."""
    with rasterio.Env():
        library = gdal()
        pointer = ctypes.c_void_p
        dataset = pointer(library.GDALOpenEx(str(path).encode(), VECTOR, None, None, None))
        assert dataset, f"GDAL does not open {path}"
        layer = pointer(library.GDALDatasetGetLayer(dataset, 0))
        features = []
        while handle := library.OGR_L_GetNextFeature(layer):
            features.append(_feature(library, pointer(handle)))
        system = pointer(library.OGR_L_GetSpatialRef(layer))
        code = library.OSRGetAuthorityCode(system, None) if system else None
        extent = (ctypes.c_double * 4)()
        library.OGR_L_GetExtent(layer, extent, 1)
        name = library.OGR_L_GetName(layer).decode()
        wkt = _text(library.OSRExportToWkt, system) if system else ""
        library.GDALClose(dataset)
    return Layer(name, features, (code or b"").decode(), wkt, tuple(extent))


def _feature(library: Any, feature: ctypes.c_void_p) -> tuple[str, dict[str, str]]:
    geometry = ctypes.c_void_p(library.OGR_F_GetGeometryRef(feature))
    fields = {}
    for index in range(library.OGR_F_GetFieldCount(feature)):
        definition = ctypes.c_void_p(library.OGR_F_GetFieldDefnRef(feature, index))
        name = library.OGR_Fld_GetNameRef(definition).decode()
        fields[name] = library.OGR_F_GetFieldAsString(feature, index).decode()
    return _text(library.OGR_G_ExportToWkt, geometry), fields


def _text(export: Any, handle: ctypes.c_void_p) -> str:
    text = ctypes.c_char_p()
    export(handle, ctypes.byref(text))
    return (text.value or b"").decode()


UTM = Georeference((0.5, 0, 404000, 0, -0.5, 3285000), "EPSG:32617")


def results_of(*boxes: list[float]) -> Results:
    count = len(boxes)
    found = Boxes(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.5, np.float32),
        np.arange(count),
        (40, 60),
    )
    return Results(np.zeros((40, 60, 3), np.uint8), "a.tif", ("tree", "ü'; DROP"), found)


def written(
    path: Path, *boxes: list[float], place: Georeference = UTM, wgs84: bool = False
) -> Layer:
    path.write_bytes(to_geopackage(results_of(*boxes), place, wgs84))
    return read_layer(path)


def test_boxes_in_the_system_of_the_raster(tmp_path: Path) -> None:
    """Pixels 10..20, 4..8 of 0.5 m: 5 m to 10 m east, 2 m to 4 m south of the corner."""
    layer = written(tmp_path / "a.gpkg", [10, 4, 20, 8], [0, 0, 2, 2])
    (first, fields), (_, others) = layer.features
    assert first == (
        "POLYGON ((404005 3284998,404005 3284996,404010 3284996,404010 3284998,404005 3284998))"
    )
    assert fields == {"name": "tree", "class": "0", "confidence": "0.5"}
    assert others["name"] == "ü'; DROP" and others["class"] == "1"
    assert (layer.name, layer.epsg) == ("detections", "32617")
    assert layer.extent == (404000.0, 404010.0, 3284996.0, 3285000.0)


def test_degrees_are_longitude_first(tmp_path: Path) -> None:
    layer = written(tmp_path / "a.gpkg", [0, 0, 20, 8], wgs84=True)
    assert layer.epsg == "4326"
    assert layer.extent[0] == pytest.approx(-81.9923, abs=2e-4)
    assert layer.extent[3] == pytest.approx(29.6914, abs=2e-4)


def test_systems_without_a_code_and_without_a_name(tmp_path: Path) -> None:
    local = (
        'PROJCS["own",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
        'PROJECTION["Transverse_Mercator"],PARAMETER["central_meridian",11.1],UNIT["metre",1]]'
    )
    own = written(tmp_path / "own.gpkg", [0, 0, 2, 2], place=Georeference(UTM.transform, local))
    assert own.epsg == "" and "11.1" in own.wkt
    nameless = Georeference(UTM.transform, "")
    assert len(written(tmp_path / "none.gpkg", [0, 0, 2, 2], place=nameless).features) == 1
    with pytest.raises(DataError, match="states no coordinate reference system"):
        to_geopackage(results_of([0, 0, 2, 2]), nameless, wgs84=True)


def test_rotated_rasters_and_nothing_found(tmp_path: Path) -> None:
    turned = Georeference((0.0, 1.0, 0.0, 1.0, 0.0, 0.0), "EPSG:32617")
    ((wkt, _),) = written(tmp_path / "a.gpkg", [10, 4, 20, 8], place=turned).features
    corners = {tuple(map(float, point.split())) for point in wkt[10:-2].split(",")}
    assert corners == {(4, 10), (4, 20), (8, 20), (8, 10)}
    assert written(tmp_path / "b.gpkg").features == []


def test_what_the_standard_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    written(path, [0, 0, 2, 2])
    base = sqlite3.connect(path)
    assert base.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert base.execute("PRAGMA foreign_key_check").fetchall() == []
    systems = {row[0] for row in base.execute("SELECT srs_id FROM gpkg_spatial_ref_sys")}
    assert systems == {-1, 0, 4326, 32617}
    base.close()


@pytest.mark.parametrize("geo", ["geojson", "gpkg", "both"])
def test_the_command(weights: Path, tmp_path: Path, geo: str) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB"}
    profile |= {"crs": "EPSG:32617", "transform": rasterio.Affine(*UTM.transform)}
    with rasterio.open(tmp_path / "s.tif", "w", height=64, width=64, **profile) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8))
    settings = {"model": str(weights), "source": str(tmp_path / "s.tif"), "geo": geo}
    options = {"conf": 0.0, "max_det": 7, "device": "cpu", "project": str(tmp_path / "runs")}
    run = predict(load_config(settings | options, mode="predict")).run_dir
    wanted = {"geojson": {".geojson"}, "gpkg": {".gpkg"}, "both": {".geojson", ".gpkg"}}[geo]
    files = [path for path in run.iterdir() if path.stem == "s" and path.suffix != ".png"]
    assert {path.suffix for path in files} == wanted
    for path in files:  # GDAL finds the same in both
        layer = read_layer(path)
        assert len(layer.features) == 7 and layer.epsg == "32617"
