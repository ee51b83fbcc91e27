"""Rows of `Annotations` -> samples at network input size.

Shapes: an image is (H, W, 3) uint8 RGB; G boxes and I ignore regions of one image are (G, 4) and
(I, 4) float32 xyxy in px of the resized image.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.cache import create_cache
from rfla.data.images import Image
from rfla.data.resize import padded_shape, resize_long_side
from rfla.data.transforms import Augmentation
from rfla.errors import DataError
from rfla.names import CachePlace

_TRIES = 20


@dataclass(frozen=True)
class Sample:
    """One image at input size with its targets.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4) float32 xyxy px of `image`.
        labels: (G,) int64, 0-based.
        ignore: (I, 4) float32 xyxy px: regions that are neither object nor background.
        row: Row of the `Annotations`.
        scale: `(sx, sy)`, px of `image` per px of the annotations, before augmentation.
        skipped: Rows that could not be read, with the reason; `image` is then that of another row,
            or empty.
        remarks: What a user should know of files that were read, with the row (`read_image`).
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.float32]
    row: int
    scale: tuple[float, float]
    skipped: tuple[tuple[int, str], ...] = ()
    remarks: tuple[tuple[int, str], ...] = ()


class DetectionDataset:
    """Samples by `(epoch, row)`.

    Each is a function of (seed, epoch, row) alone, in whatever process it is made.

    An unreadable image is replaced by the next readable row while training (`transforms` given),
    and left out otherwise. Either way the sample says so, and the loader names the file once.

    Args:
        index: Images and boxes.
        imgsz: Long side of the input, px.
        transforms: Augmentation while training; None resizes only.
        seed: Of the augmentation.
        cache: Where decoded images are kept: "ram" (memory shared by forked workers), "disk" (files
            in the cache directory), or None.
    """

    def __init__(
        self,
        index: Annotations,
        imgsz: int = 800,
        transforms: Augmentation | None = None,
        seed: int = 0,
        cache: CachePlace | None = None,
    ) -> None:
        self.index = index
        self.imgsz = imgsz
        self.transforms = transforms
        self.seed = seed
        self.cache = create_cache(cache, index.image_hw) if cache else None

    def __len__(self) -> int:
        return len(self.index)

    def padded_sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of each image at the network's input, padded, px.

        Without augmentation, and by the sizes that the annotations state.
        """
        sizes = [padded_shape(h, w, self.imgsz) for h, w in self.index.image_hw.tolist()]
        return np.array(sizes, np.int64).reshape(-1, 2)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        notes = _Notes()
        # In training an unreadable image is replaced by the next one, so that a batch stays full;
        # in validation it is left out.
        for step in range(_TRIES if self.transforms is not None else 1):
            candidate = (row + step) % len(self)
            try:
                image, boxes = self.read(candidate, notes.remarks)
            except DataError as error:
                notes.skipped.append((candidate, str(error)))
                continue
            return self._sample(epoch, candidate, image, boxes, notes)
        if len(notes.skipped) == _TRIES:
            first = notes.skipped[0][1]
            raise DataError(f"{_TRIES} images in a row could not be read; the first: {first}")
        none = np.zeros((0, 4), np.float32)
        empty = np.zeros((0, 0, 3), np.uint8)
        labels = np.zeros(0, np.int64)
        return Sample(empty, none, labels, none, row, (1.0, 1.0), tuple(notes.skipped))

    def read(
        self, row: int, remarks: list[tuple[int, str]] | None = None
    ) -> tuple[Image, NDArray[np.float32]]:
        """Return the image of one row, (H, W, 3), and its boxes (G, 4) in px of that image.

        Args:
            row: Of the index.
            remarks: Is given the row and what a user should know of its file.

        Raises:
            DataError: As in `read_annotated`.
        """
        boxes = self.index.boxes[self.index.rows_of(row)]
        height, width = (int(side) for side in self.index.image_hw[row])
        image = self.cache.get(row) if self.cache else None
        if image is None:
            image = self._decode(row, remarks)
        # A file may be smaller or larger than its annotations say: then boxes follow the pixels.
        if image.shape[:2] != (height, width):
            ratio = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
            boxes = boxes * np.tile(ratio, 2)
        return image, boxes

    def _decode(self, row: int, remarks: list[tuple[int, str]] | None) -> Image:
        """Read the file of a row, and keep its pixels where there is a cache."""
        texts: list[str] = []
        image = self.index.read_image(row, remarks=texts)
        if remarks is not None:
            remarks += [(row, text) for text in texts]
        if self.cache:
            self.cache.put(row, image)
        return image

    def _sample(
        self,
        epoch: int,
        row: int,
        image: Image,
        boxes: NDArray[np.float32],
        notes: "_Notes",
    ) -> Sample:
        if self.transforms is None:
            image, factors = resize_long_side(image, self.imgsz)
            boxes = boxes * np.array([*factors, *factors], np.float32)
            height, width = self.index.image_hw[row].tolist()
            scale = (image.shape[1] / width, image.shape[0] / height)
            labels, apart = self._kinds([row])
        else:
            # From these three numbers alone, so that neither workers nor a resume change a sample.
            rng = np.random.default_rng([self.seed, epoch, row])
            partners = self._partners(epoch, rng, notes)
            others = [partner for _, partner in partners]
            image, boxes, kept, cut, scale = self.transforms(image, boxes, self.imgsz, rng, others)
            labels, apart = self._kinds([row, *(other for other, _ in partners)])
            labels, apart = labels[kept], apart[kept] | cut
        return Sample(
            image,
            boxes[~apart],
            labels[~apart],
            boxes[apart],
            row,
            scale,
            tuple(notes.skipped),
            tuple(notes.remarks),
        )

    def _partners(
        self, epoch: int, rng: np.random.Generator, notes: "_Notes"
    ) -> list[tuple[int, tuple[Image, NDArray[np.float32]]]]:
        """Return rows and pictures of a mosaic's three other images.

        None where one of them cannot be read.
        """
        assert self.transforms is not None
        partners = []
        for row in self.transforms.partners(len(self), rng, epoch):
            try:
                partners.append((row, self.read(row, notes.remarks)))
            except DataError as error:
                notes.skipped.append((row, str(error)))
                return []
        return partners

    def _kinds(self, images: list[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return labels of the boxes of some images, and which boxes are no objects to learn."""
        rows = np.concatenate(
            [np.arange(*self.index.box_start[image : image + 2]) for image in images]
        )
        return self.index.labels[rows], self.index.ignore[rows] | self.index.crowd[rows]


@dataclass
class _Notes:
    """What was found while a sample was made: rows that cannot be read, remarks on others."""

    skipped: list[tuple[int, str]] = field(default_factory=list)
    remarks: list[tuple[int, str]] = field(default_factory=list)
