"""What `predict` returns: one `Results` for each image, holding `Boxes`.

Shapes: N detections of one image. Boxes are xyxy in pixels of the original image.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import DataError, installed, printable, shorten
from rfla.files import as_unicode, refused_in_one_line, write_atomically

Array = np.ndarray[Any, np.dtype[Any]]


class _Single(np.ndarray):
    """An array of one number that is also that number, as a tensor of one is."""

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())


@dataclass(frozen=True, eq=False)
class Boxes:
    """Detections of one image, best first.

    Attributes:
        xyxy: (N, 4) float32, left, top, right, bottom in px of the original image.
        conf: (N,) float32 scores in 0..1.
        cls: (N,) int64 class indices, 0-based, into `Results.names`.
        orig_shape: Height and width of the image in px.
    """

    xyxy: Array
    conf: Array
    cls: Array
    orig_shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, key: Any) -> "Boxes":
        """Return the detections that an index, a slice or a mask selects.

        Of a single one, `int(box.cls)` and `float(box.conf)` are its class and score.
        """
        chosen = np.arange(len(self))[key]
        keep = np.atleast_1d(chosen)
        conf, cls = self.conf[keep], self.cls[keep]
        if np.ndim(chosen) == 0:
            conf, cls = conf.view(_Single), cls.view(_Single)
        return Boxes(self.xyxy[keep], conf, cls, self.orig_shape)

    @property
    def xywh(self) -> Array:
        """(N, 4) centre x, centre y, width, height in px."""
        size = self.xyxy[:, 2:] - self.xyxy[:, :2]
        return np.concatenate([self.xyxy[:, :2] + size / 2, size], axis=1)

    @property
    def xyxyn(self) -> Array:
        """(N, 4) `xyxy` as shares of the image's width and height."""
        return self.xyxy / self._scale

    @property
    def xywhn(self) -> Array:
        """(N, 4) `xywh` as shares of the image's width and height."""
        return self.xywh / self._scale

    @property
    def _scale(self) -> Array:
        height, width = self.orig_shape
        return np.array([width, height, width, height], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Results:
    """The detections of one image, with the image.

    Attributes:
        orig_img: (H, W, 3) uint8, RGB; of a scene that was read by windows a reduced copy.
        path: The image's file, or a made-up name for an array.
        names: Class names by index.
        boxes: The detections, best first.
        speed: Milliseconds for this image: preprocess, inference, postprocess (merging included).
        frame: Number of the frame of a video, or page of a file, from 0; None for single images.
        time: Seconds from the start of the video; None for pages and single images.
    """

    orig_img: Array
    path: str
    names: Sequence[str]
    boxes: Boxes
    speed: dict[str, float] = field(default_factory=dict)
    frame: int | None = None
    time: float | None = None

    @property
    def orig_shape(self) -> tuple[int, int]:
        """Height and width of the image in px."""
        return self.boxes.orig_shape

    @property
    def label(self) -> str:
        """The image in words, on one line: its path, and the page or second of it."""
        path = printable(self.path, keep="")
        if self.frame is None:
            return path
        where = f"page {self.frame + 1}" if self.time is None else f"{self.time:.2f} s"
        return f"{path} ({where})"

    @property
    def mark(self) -> str:
        """What tells page 3 or frame 12 (from 0) from others of its file: `_p3`, `_000012`."""
        if self.frame is None:
            return ""
        return f"_p{self.frame + 1}" if self.time is None else f"_{self.frame:06d}"

    @property
    def stem(self) -> str:
        """Its file's name without suffix, and its page or frame: `x`, `x_p3`, `x_000012`."""
        return f"{Path(self.path).stem}{self.mark}"

    @property
    def is_reduced(self) -> bool:
        """Whether `orig_img` is a reduced copy, of a scene that was read by windows."""
        return (self.orig_img.shape[0], self.orig_img.shape[1]) != self.orig_shape

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, key: Any) -> "Results":
        """Return the same image with the detections that an index, a slice or a mask selects."""
        return replace(self, boxes=self.boxes[key])

    def __iter__(self) -> Iterator["Results"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.orig_shape
        return f"Results({self.label!r}, {width} x {height} px, {self.verbose()})"

    def plot(
        self,
        line_width: int | None = None,
        show_labels: bool | None = None,
        *,
        legend: bool = True,
        scale: int | None = None,
    ) -> Array:
        """Return a copy of the image with the boxes drawn, (H', W', 3) uint8 RGB.

        Args:
            line_width: In px; by size if left out.
            show_labels: Write class names; left out, not where they would hide the objects.
            legend: Add a strip with the classes below.
            scale: Whole factor of enlargement; left out, small images are enlarged. `scale=1` with
                `legend=False` keeps the size of the image.

        Raises:
            DataError: A `line_width` or `scale` that is no whole number from 1.
        """
        for key, value in (("line_width", line_width), ("scale", scale)):
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise DataError(f"{key}={shorten(value)}: must be a whole number from 1")
        from rfla.pictures.boxes import draw_boxes

        return draw_boxes(
            self.orig_img,
            self.boxes.xyxyn * np.tile(self.orig_img.shape[1::-1], 2)
            if self.is_reduced
            else self.boxes.xyxy,
            self.boxes.cls,
            self.names,
            self.boxes.conf,
            line_width,
            show_labels,
            legend=legend,
            factor=scale,
        )

    def save(
        self,
        path: str | Path | None = None,
        line_width: int | None = None,
        show_labels: bool | None = None,
        *,
        legend: bool = True,
        scale: int | None = None,
    ) -> Path:
        """Write the picture of `plot` and return its path.

        Args:
            path: Image file to write, whose suffix chooses the format; left out,
                `<stem>_pred.png` in the working directory, where it takes the place of an
                earlier one.
            line_width: As in `plot`.
            show_labels: As in `plot`.
            legend: As in `plot`.
            scale: As in `plot`.

        Raises:
            RflaError: The suffix is that of no format, or the file cannot be written.
        """
        from rfla.pictures.boxes import write_picture

        target = Path(path) if path is not None else Path(f"{self.stem}_pred.png")
        picture = self.plot(line_width, show_labels, legend=legend, scale=scale)
        with refused_in_one_line(target):
            write_picture(target, picture)
        return target

    def save_crop(self, directory: str | Path = "crops", name: str | None = None) -> list[Path]:
        """Write the pixels of each box as `directory/CLASS/NAME_1.png`, ... and return the paths.

        Args:
            directory: Made where it is missing.
            name: Start of the files' names, `stem` by default; may hold directories.

        Raises:
            DataError: `orig_img` is a reduced copy.
            RflaError: A file cannot be written.
        """
        from rfla.pictures.boxes import write_picture

        if self.is_reduced:
            raise DataError(f"{self.path}: no crops of a scene that was read by windows")
        crops = self.crops(directory, name)
        for path, (x1, y1, x2, y2) in crops:
            with refused_in_one_line(path):
                write_picture(path, np.ascontiguousarray(self.orig_img[y1:y2, x1:x2]))
        return [path for path, _ in crops]

    def crops(
        self, directory: str | Path, name: str | None = None
    ) -> list[tuple[Path, tuple[int, int, int, int]]]:
        """Return the file of each box that `save_crop` writes, and its window: xyxy in px."""
        stem = name if name is not None else self.stem
        height, width = self.orig_shape
        low = np.clip(np.floor(self.boxes.xyxy[:, :2]), 0, [width - 1, height - 1]).astype(int)
        high = np.ceil(self.boxes.xyxy[:, 2:]).astype(int)
        high = np.clip(high, low + 1, [width, height])
        found = []
        for number, ((x1, y1), (x2, y2), label) in enumerate(
            zip(low.tolist(), high.tolist(), self.boxes.cls.tolist(), strict=True), start=1
        ):
            folder = "".join(c if c.isalnum() or c in " -_." else "_" for c in self.names[label])
            target = Path(directory) / (folder.strip(" .") or str(label)) / f"{stem}_{number}.png"
            found.append((target, (x1, y1, x2, y2)))
        return found

    def show(self) -> None:
        """Open the picture in the system's viewer."""
        from PIL import Image

        Image.fromarray(self.plot()).show()

    def verbose(self) -> str:
        """Return what was found in words: `3 ship, 1 person`, class names as they are."""
        counts = np.bincount(self.boxes.cls, minlength=len(self.names))
        found = [f"{count} {self.names[i]}" for i, count in enumerate(counts) if count]
        return ", ".join(found) or "nothing"

    def summary(self) -> list[dict[str, Any]]:
        """Return one plain dict for each detection: name, class, confidence, box in px."""
        keys = ("x1", "y1", "x2", "y2")
        return [
            {
                "name": self.names[int(label)],
                "class": int(label),
                "confidence": float(score),
                "box": dict(zip(keys, map(float, box), strict=True)),
            }
            for box, score, label in zip(
                self.boxes.xyxy, self.boxes.conf, self.boxes.cls, strict=True
            )
        ]

    def to_json(self) -> str:
        """Return `summary` as JSON text."""
        return json.dumps(self.summary())

    def to_fiftyone(self) -> list[dict[str, Any]]:
        """Return plain dicts that `fiftyone.Detection(**row)` takes.

        `bounding_box` is left, top, width and height as shares of the image.
        """
        corners = self.boxes.xyxyn
        shares = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        columns = (self.boxes.cls.tolist(), self.boxes.conf.tolist(), shares.tolist())
        return [
            {"label": self.names[label], "confidence": score, "bounding_box": box}
            for label, score, box in zip(*columns, strict=True)
        ]

    def to_coco(
        self, image_id: int | str | None = None, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Return COCO detection rows (bbox is x, y, width, height in px).

        Args:
            image_id: The image's id; `stem` by default.
            category_ids: Id of each class; by default 1, 2, ..., and the name is written beside it,
                by which `val predictions=` finds the class in any data set.

        Raises:
            DataError: Not one id for each class.
        """
        ids = category_ids if category_ids is not None else range(1, len(self.names) + 1)
        if len(ids) != len(self.names) or len(set(ids)) < len(ids):
            raise DataError(
                f"category_ids: {len(self.names)} different ids expected, one for each class, not "
                f"{shorten(ids)}"
            )
        identity = as_unicode(self.stem) if image_id is None else image_id
        named = category_ids is None and len(set(self.names)) == len(self.names)
        return [
            {
                "image_id": identity,
                "category_id": int(ids[int(label)]),
                "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                "score": float(score),
            }
            | ({"category_name": self.names[int(label)]} if named else {})
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.xyxy, self.boxes.conf, self.boxes.cls, strict=True
            )
        ]

    def save_txt(self, path: str | Path | None = None, save_conf: bool = False) -> None:
        """Write YOLO rows: class, centre, width and height as shares of the image.

        With `save_conf` the score is the last number. Without a path the file is
        `<stem>.txt` in the working directory.

        Raises:
            RflaError: The file cannot be written.
        """
        rows = []
        for box, score, label in zip(
            self.boxes.xywhn, self.boxes.conf, self.boxes.cls, strict=True
        ):
            numbers = [*box, score] if save_conf else list(box)
            rows.append(" ".join([str(int(label)), *(f"{number:.7g}" for number in numbers)]))
        path = Path(path) if path is not None else Path(f"{self.stem}.txt")
        with refused_in_one_line(path):
            write_atomically(path, "".join(f"{row}\n" for row in rows), flush=False)

    def to_df(self) -> Any:
        """Return a `pandas.DataFrame`, one row for each detection (install pandas yourself).

        Columns: x1, y1, x2, y2 (px), confidence, class, name.
        """
        pandas = installed("pandas", "pip install pandas")
        columns = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.xyxy.T, strict=True))
        names = [self.names[label] for label in self.boxes.cls.tolist()]
        rest = {"confidence": self.boxes.conf, "class": self.boxes.cls, "name": names}
        return pandas.DataFrame(columns | rest)

    def to_supervision(self) -> Any:
        """Return a `supervision.Detections` with class names (install supervision yourself)."""
        supervision = installed("supervision", "pip install supervision")
        names = np.array([self.names[label] for label in self.boxes.cls.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes.xyxy,
            confidence=self.boxes.conf,
            class_id=self.boxes.cls,
            data={"class_name": names},
        )
