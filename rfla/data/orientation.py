"""EXIF orientations: how the stored pixels of a picture become what is shown.

An orientation exchanges rows and columns, or not, and then turns their order round, or not.
Windows are x1, y1, x2, y2 and points (N, 2) columns and rows, in px.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rfla.data.tiles import Window

Pixels = TypeVar("Pixels", bound=np.generic)


@dataclass(frozen=True)
class Orientation:
    """One of the eight.

    Attributes:
        swaps: Stored rows are shown as columns.
        upwards: Then, the order of rows is turned round.
        leftwards: And that of columns.
    """

    swaps: bool = False
    upwards: bool = False
    leftwards: bool = False

    def shown(self, stored: NDArray[Pixels]) -> NDArray[Pixels]:
        """Turn stored pixels (H, W, ...) into those that are shown, without a copy."""
        pixels = stored.swapaxes(0, 1) if self.swaps else stored
        return pixels[:: -1 if self.upwards else 1, :: -1 if self.leftwards else 1]

    def stored(self, shown: NDArray[Pixels]) -> NDArray[Pixels]:
        """Turn pixels (H, W, ...) as shown into the stored ones, without a copy."""
        pixels = shown[:: -1 if self.upwards else 1, :: -1 if self.leftwards else 1]
        return pixels.swapaxes(0, 1) if self.swaps else pixels

    def sides(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height as shown of a picture stored with these, and the reverse."""
        return (height, width) if self.swaps else (width, height)

    def stored_points(self, points: NDArray[Any], width: int, height: int) -> NDArray[Any]:
        """Return where points of a picture that is shown with width x height px are stored."""
        columns, rows = points[:, 0], points[:, 1]
        columns = width - columns if self.leftwards else columns
        rows = height - rows if self.upwards else rows
        return np.stack((rows, columns) if self.swaps else (columns, rows), axis=1)

    def stored_window(self, window: Window, width: int, height: int) -> Window:
        """Return the stored window that is shown as this one, in a picture of width x height px."""
        corners = self.stored_points(np.array(window).reshape(2, 2), width, height)
        (x1, y1), (x2, y2) = np.sort(corners, axis=0).tolist()
        return x1, y1, x2, y2


AS_STORED = Orientation()
# by the number of the EXIF and TIFF tag; other numbers mean nothing
ORIENTATIONS = {
    1: AS_STORED,
    2: Orientation(leftwards=True),
    3: Orientation(upwards=True, leftwards=True),
    4: Orientation(upwards=True),
    5: Orientation(swaps=True),
    6: Orientation(swaps=True, leftwards=True),
    7: Orientation(swaps=True, upwards=True, leftwards=True),
    8: Orientation(swaps=True, upwards=True),
}
