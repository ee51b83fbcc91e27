"""What a conversion did, counted: images, boxes by class and size, what was dropped and why."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.annotations import UNOPENED, Annotations
from rfla.data.record import ImageRecord, is_object
from rfla.sizes import AITOD_EDGES, AITOD_SIZES

SHOWN = 12  # names of classes without a box


@dataclass
class ConvertReport:
    """The counts of one conversion.

    Attributes:
        out: The directory that was written.
        target: Format that was written.
        names: Class names in label order.
        images: Images (or tiles) written, by split.
        boxes: (C, 4) boxes to learn from, by class and size bin of `AITOD_SIZES`.
        ignored: (C + 1,) ignored boxes by class; the last are regions without a class.
        dropped: Boxes or images left out, by reason.
        repaired: Boxes or images changed, by reason.
        examples: The first place of each reason.
        range_16: Which values of 16-bit images became 0 and 255 where that was looked for, or "".
        too_large: Images that were kept whole and are too large to be decoded in training.
    """

    out: Path
    target: str
    names: list[str]
    images: Counter[str] = field(default_factory=Counter)
    boxes: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)
    ignored: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    range_16: str = ""
    too_large: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.boxes = np.zeros((len(self.names), len(AITOD_SIZES)), np.int64)
        self.ignored = np.zeros(len(self.names) + 1, np.int64)

    def drop(self, reason: str, where: str, count: int = 1) -> None:
        """Count what was left out, and remember the first place."""
        self.dropped[reason] += count
        self.examples.setdefault(reason, where)

    def repair(self, reason: str, where: str, count: int = 1) -> None:
        """Count what was changed, and remember the first place."""
        self.repaired[reason] += count
        self.examples.setdefault(reason, where)

    def add_reading(self, read: Annotations) -> None:
        """Count what the reader of a split left out or repaired."""
        for reason, count in read.dropped.items():
            self.drop(reason, read.examples[reason], count)
        for reason, count in read.counts.items():
            if reason != UNOPENED:  # such images are left out later, with the reason
                self.repair(reason, read.examples[reason], count)

    def add(self, record: ImageRecord, split: str) -> None:
        """Count a record as it is written."""
        self.images[split] += 1
        out = ~is_object(record)
        np.add.at(self.ignored, record.labels[out], 1)  # NO_CLASS is -1: the last entry
        boxes, labels = record.boxes[~out], record.labels[~out]
        side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        np.add.at(self.boxes, (labels, np.searchsorted(AITOD_EDGES, side, side="right")), 1)

    @property
    def num_boxes(self) -> int:
        """Boxes to learn from."""
        return int(self.boxes.sum())

    def warnings(self) -> list[str]:
        """Return what a user should look at before training."""
        notes = []
        if not self.num_boxes:
            notes.append("no boxes to train on: all are ignored, crowds or dropped")
        missing = self.dropped["images that are not there"]
        if missing > sum(self.images.values()):
            notes.append("most images were not found: is source= the right directory?")
        if self.too_large:
            first = next(iter(self.too_large))
            notes.append(
                f"{len(self.too_large):,} images are larger than max_pixels, so that training "
                f"refuses them (first: {first}): cut tiles with tile=800"
            )
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for convert.json."""
        bins = [name for name, _, _ in AITOD_SIZES]
        return {
            "target": self.target,
            "images": dict(self.images),
            "boxes": {
                n: dict(zip(bins, row.tolist(), strict=True))
                for n, row in zip(self.names, self.boxes, strict=True)
            },
            "ignored": dict(zip([*self.names, "(no class)"], self.ignored.tolist(), strict=True)),
            "dropped": dict(self.dropped),
            "repaired": dict(self.repaired),
            "range_16": self.range_16,
            "first": self.examples,
        }

    def table(self) -> str:
        """Return the summary as text."""
        wide = max([len(name) for name in self.names] + [10])
        head = "".join(
            f"{title:>10}" for title in ["boxes", *(name for name, _, _ in AITOD_SIZES), "ignored"]
        )
        lines = [f"{'class':<{wide}}{head}"]
        absent = []
        for label, name in enumerate(self.names):
            if self.boxes[label].any() or self.ignored[label]:
                lines.append(_row(name, wide, self.boxes[label], self.ignored[label]))
            else:
                absent.append(name)
        if self.ignored[-1]:
            lines.append(
                _row("(no class)", wide, np.zeros(len(AITOD_SIZES), np.int64), self.ignored[-1])
            )
        lines.append(_row("all", wide, self.boxes.sum(axis=0), self.ignored.sum()))
        if absent:
            more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
            lines.append(f"classes without a box: {', '.join(absent[:SHOWN])}{more}")
        images = ", ".join(f"{split} {count:,}" for split, count in self.images.items())
        lines.append(
            f"images: {images or 'none'}    "
            "sizes: vt < 8 px, t < 16, s < 32, m from 32 (sides of squares)"
        )
        for verb, counts in (("dropped", self.dropped), ("repaired", self.repaired)):
            for reason, count in counts.most_common():
                first = f" (first: {self.examples[reason]})" if reason in self.examples else ""
                lines.append(f"{verb} {count:,}: {reason}{first}")
        lines += [self.range_16] if self.range_16 else []
        lines += [f"warning: {note}" for note in self.warnings()]
        return "\n".join([*lines, f"written to {self.out}"])


def _row(name: str, wide: int, bins: np.ndarray[Any, np.dtype[np.int64]], ignored: Any) -> str:
    return (
        f"{name:<{wide}}{int(bins.sum()):>10,}"
        + "".join(f"{count:>10,}" for count in bins)
        + f"{int(ignored):>10,}"
    )
