"""Pictures of a data set to draw on: readable ones, those with about so many boxes first."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rfla.data import Annotations
from rfla.data.images import Image
from rfla.data.resize import resize_long_side
from rfla.errors import DataError


def readable_pictures(
    index: Annotations, imgsz: int, counts: NDArray[np.int64], about: int
) -> Iterator[tuple[int, Image]]:
    """Yield rows of the index and their pictures, without those that cannot be read.

    Args:
        index: The images.
        imgsz: Long side of the pictures, px.
        counts: (N,) boxes of each image.
        about: The images whose number of boxes is nearest to this come first.
    """
    for row in np.argsort(np.abs(counts - about), kind="stable").tolist():
        try:
            image, _ = resize_long_side(index.picture(row), imgsz)
        except DataError:
            continue
        yield row, image
