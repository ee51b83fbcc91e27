"""What `predict` returns: one `Results` for each image, holding `Boxes`.

Shapes: N detections of one image. Boxes are xyxy in pixels of the original image.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


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
        """Return the detections that an index, a slice or a mask selects."""
        keep = np.atleast_1d(np.arange(len(self))[key])
        return Boxes(self.xyxy[keep], self.conf[keep], self.cls[keep], self.orig_shape)

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
        orig_img: (H, W, 3) uint8, RGB.
        path: The image's file, or a made-up name for an array.
        names: Class names by index.
        boxes: The detections, best first.
        speed: Milliseconds for this image: preprocess, inference, postprocess.
    """

    orig_img: Array
    path: str
    names: Sequence[str]
    boxes: Boxes
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def orig_shape(self) -> tuple[int, int]:
        """Height and width of the image in px."""
        return (self.orig_img.shape[0], self.orig_img.shape[1])

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, key: Any) -> "Results":
        """Return the same image with a selection of its detections."""
        return Results(self.orig_img, self.path, self.names, self.boxes[key], self.speed)

    def __iter__(self) -> Iterator["Results"]:
        return (self[i] for i in range(len(self)))

    def plot(self, line_width: int | None = None, show_labels: bool | None = None) -> Array:
        """Return a copy of the image with the boxes drawn, (H', W', 3) uint8 RGB.

        Small images are enlarged.

        Labels are left out by default where they would hide the objects.
        """
        from rfla.pictures.boxes import draw_boxes

        return draw_boxes(
            self.orig_img,
            self.boxes.xyxy,
            self.boxes.cls,
            self.names,
            self.boxes.conf,
            line_width,
            show_labels,
        )

    def save(
        self,
        path: str | Path | None = None,
        line_width: int | None = None,
        show_labels: bool | None = None,
    ) -> Path:
        """Write the picture of `plot` and return its path.

        By default `<image name>_pred.png` where you are.
        """
        from rfla.pictures.boxes import write_picture

        target = Path(path) if path is not None else Path(f"{Path(self.path).stem}_pred.png")
        write_picture(target, self.plot(line_width, show_labels))
        return target

    def show(self) -> None:
        """Open the picture in the system's viewer."""
        from PIL import Image

        Image.fromarray(self.plot()).show()

    def verbose(self) -> str:
        """Return what was found in words: `3 ships, 1 person`."""
        counts = np.bincount(self.boxes.cls, minlength=len(self.names))
        found = [
            f"{count} {self.names[i]}{'s' if count > 1 else ''}"
            for i, count in enumerate(counts)
            if count
        ]
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

    def to_coco(
        self, image_id: int | str | None = None, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Return COCO detection rows (bbox is x, y, width, height in px).

        Args:
            image_id: The image's id; its file stem by default.
            category_ids: Id of each class; 1, 2, ... by default.
        """
        ids = category_ids if category_ids is not None else range(1, len(self.names) + 1)
        identity = Path(self.path).stem if image_id is None else image_id
        return [
            {
                "image_id": identity,
                "category_id": int(ids[int(label)]),
                "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                "score": float(score),
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.xyxy, self.boxes.conf, self.boxes.cls, strict=True
            )
        ]

    def save_txt(self, path: str | Path, save_conf: bool = False) -> None:
        """Write YOLO rows: class, centre, width and height as shares of the image, and the score if asked for."""
        rows = []
        for box, score, label in zip(
            self.boxes.xywhn, self.boxes.conf, self.boxes.cls, strict=True
        ):
            numbers = [*box, score] if save_conf else list(box)
            rows.append(" ".join([str(int(label)), *(f"{number:.7g}" for number in numbers)]))
        Path(path).write_text("\n".join(rows) + ("\n" if rows else ""))

    def to_supervision(self) -> Any:
        """Return a `supervision.Detections` (install supervision yourself)."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.xyxy, confidence=self.boxes.conf, class_id=self.boxes.cls
        )
