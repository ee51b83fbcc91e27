"""Where the pixels of a GeoTIFF lie on earth, and how large they are there.

Points are (N, 2): columns and rows in px of the picture as it is shown, or x and y of the raster's
coordinate reference system, or degrees of longitude and latitude.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.images import image_orientation
from rfla.data.orientation import AS_STORED
from rfla.data.scenes import TIFF, rasterio_or_none
from rfla.data.tiff import GEO_KEYS, read_tiff_header
from rfla.errors import DataError
from rfla.files import open_regular

EQUATOR_RADIUS, ECCENTRICITY_SQUARED = 6_378_137.0, 0.00669437999014  # m; of WGS84


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a raster lie on earth.

    Attributes:
        transform: a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f.
        crs: Coordinate reference system of x and y, as `EPSG:32617` or WKT; "" if none is stated.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str

    @property
    def wkt(self) -> str:
        """The coordinate reference system as WKT; "" if none is stated."""
        if not self.crs:
            return ""
        from rasterio.crs import CRS

        return str(CRS.from_user_input(self.crs).to_wkt())

    def to_raster(self, points: np.ndarray) -> np.ndarray:
        """Turn (N, 2) px into x and y of the raster's coordinate system."""
        a, b, c, d, e, f = self.transform
        column, row = points[:, 0], points[:, 1]
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)

    def to_wgs84(self, points: np.ndarray) -> np.ndarray:
        """Turn (N, 2) px into degrees of longitude and latitude.

        Raises:
            DataError: The raster states no coordinate reference system, or one in which these
                points have no place on earth.
        """
        if not self.crs:
            raise DataError("the raster states no coordinate reference system")
        from rasterio.warp import transform

        x, y = self.to_raster(points).T
        try:
            degrees = np.array(transform(self.crs, "EPSG:4326", x.tolist(), y.tolist())).T
        except Exception as error:  # rasterio wraps PROJ's many errors
            raise DataError(f"its coordinates have no WGS84 ({str(error)[:120]})") from None
        if not np.isfinite(degrees).all():
            raise DataError("its coordinates have no WGS84: some points are not on earth")
        return degrees


def read_georeference(path: Path) -> Georeference | None:
    """Return where a GeoTIFF lies; None for other files, and without rasterio."""
    rasterio = rasterio_or_none()
    if rasterio is None or path.suffix.lower() not in TIFF:
        return None
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            if dataset.transform.is_identity:
                return None
            return _as_shown(_georeference(dataset), path, dataset)
    except Exception:  # rasterio wraps GDAL's many errors; the pixels may be readable all the same
        return None


def _georeference(dataset: Any) -> Georeference:
    crs = dataset.crs
    epsg = crs.to_epsg() if crs else None
    name = f"EPSG:{epsg}" if epsg else (crs.to_wkt() if crs else "")
    return Georeference(tuple(dataset.transform)[:6], name)


def _as_shown(place: Georeference, path: Path, dataset: Any) -> Georeference:
    """Turn the place of the stored pixels, which GDAL gives, into that of the picture as shown."""
    orientation = image_orientation(path)
    if orientation == AS_STORED:
        return place
    width, height = orientation.sides(int(dataset.width), int(dataset.height))
    corners = orientation.stored_points(np.array([(0, 0), (1, 0), (0, 1)]), width, height)
    (x, y), (x_right, y_right), (x_below, y_below) = place.to_raster(corners).tolist()
    transform = (x_right - x, x_below - x, x, y_right - y, y_below - y, y)
    return Georeference(transform, place.crs)


def is_georeferenced(path: Path) -> bool:
    """Tell whether a file says that it lies on earth; rasterio, which says where, is not needed."""
    if path.suffix.lower() not in TIFF:
        return False
    try:
        with open_regular(path) as file:
            header = read_tiff_header(file)
    except DataError:
        return False
    return header is not None and GEO_KEYS in header.tags


def read_gsd(path: Path) -> float | None:
    """Return the metres on the ground that a pixel of a GeoTIFF covers, at its centre.

    None for other files, for rasters without a coordinate reference system, and without rasterio.
    """
    rasterio = rasterio_or_none()
    if rasterio is None or path.suffix.lower() not in TIFF:
        return None
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            crs = dataset.crs
            if not crs or dataset.transform.is_identity:
                return None
            place = _georeference(dataset)
            column, row = dataset.width / 2, dataset.height / 2
            if not (crs.is_projected or crs.is_geographic):  # a local one, of a site
                a, b, _, d, e, _ = place.transform
                return float(abs(a * e - b * d) ** 0.5 * crs.linear_units_factor[1])
        # Measured on the ground: a metre of Web Mercator is half of one at 60 degrees north.
        corners = place.to_wgs84(np.array([(column, row), (column + 1, row), (column, row + 1)]))
        return ground_side(corners) or None
    except Exception:  # rasterio wraps GDAL's many errors; the pixels may be readable all the same
        return None


def unwrapped(degrees: np.ndarray) -> np.ndarray:
    """(..., N, 2) longitude and latitude of neighbouring points, without a jump at 180 degrees.

    Points beyond it from the first one have more than 180 degrees, or less than -180.
    """
    moved = degrees.copy()
    moved[..., 0] -= 360 * np.round((moved[..., 0] - moved[..., :1, 0]) / 360)
    return moved


def ground_side(corners: np.ndarray) -> float:
    """Return the side in m of a square as large as the parallelogram of three corners.

    Args:
        corners: (3, 2) degrees of longitude and latitude, the first between the others; not more
            than a few km apart.
    """
    latitude = np.radians(corners[0, 1])
    flat = 1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2
    # radii of the ellipsoid WGS84 along the parallel and along the meridian
    east = EQUATOR_RADIUS / flat**0.5 * np.cos(latitude)
    north = EQUATOR_RADIUS * (1 - ECCENTRICITY_SQUARED) / flat**1.5
    (x1, y1), (x2, y2) = np.radians(unwrapped(corners)[1:] - corners[0]) * (east, north)
    return float(abs(x1 * y2 - x2 * y1) ** 0.5)
