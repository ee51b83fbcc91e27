"""The rules of an evaluation: IoU thresholds, size ranges, detection limits, what is ignored.

Size ranges are given in px of sqrt(area), both ends included, and compared as areas in px².
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from rfla.errors import MetricError, did_you_mean, shorten
from rfla.sizes import AITOD_SIZES, LARGEST

Ignoring = Literal["crowd", "regions", "iod"]

MOST_IOUS = 64  # `matching` keeps a bit of a 64-bit word for each
COCO_IOUS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))


@dataclass(frozen=True)
class Protocol:
    """How boxes are compared and which figures are reported.

    Args:
        name: for tables and files.
        ious: IoU thresholds whose mean is AP.
        extra_ious: IoU thresholds that are matched and reported one by one but not part of AP.
        sizes: name -> (low, high) px of sqrt(area); the range "all" comes first by itself.
        max_dets: ascending; how many detections of one image and class count. AP uses the last.
        ignoring: what counts neither as missed nor as false.
            "crowd": crowd boxes, matched by intersection over the detection (IoD), as COCO and
            AI-TOD; "regions": crowd and ignore boxes, all by IoD; boxes and detections of which
            half or more lies inside regions are dropped, as the VisDrone toolkit;
            "iod": crowd and ignore boxes; a detection without a match is ignored where its IoD with
            any box ignored in that size range reaches the threshold, as TinyPerson's evaluator.
        smallest: px of sqrt(area) below which the range "all" ignores a box.
        lrp: whether oLRP is computed.

    Raises:
        MetricError: A threshold or a limit that makes no sense.
    """

    name: str
    ious: tuple[float, ...] = COCO_IOUS
    extra_ious: tuple[float, ...] = (0.25,)
    sizes: tuple[tuple[str, float, float], ...] = ()
    max_dets: tuple[int, ...] = (100, 300, 1500)
    ignoring: Ignoring = "crowd"
    smallest: float = 0.0
    lrp: bool = True

    def __post_init__(self) -> None:
        given = f"protocol {self.name}: "
        if not self.ious or not all(0 < iou < 1 for iou in self.thresholds):
            raise MetricError(f"{given}ious {list(self.thresholds)} must be between 0 and 1")
        if len(self.thresholds) > MOST_IOUS:
            raise MetricError(
                f"{given}{len(self.thresholds)} IoU thresholds; at most {MOST_IOUS} are matched"
            )
        limits = list(self.max_dets)
        if not limits or limits[0] < 1 or limits != sorted(limits):
            raise MetricError(f"{given}max_dets {limits} must be numbers from 1 on that rise")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """All IoU thresholds that are matched: `ious`, then the others of `extra_ious`."""
        return self.ious + tuple(t for t in self.extra_ious if t not in self.ious)

    @property
    def size_names(self) -> tuple[str, ...]:
        """The names of the ranges, "all" first."""
        return ("all", *(name for name, _, _ in self.sizes))

    @property
    def area_ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) area in px² of "all" and of each range."""
        whole = (self.smallest**2, LARGEST**2)
        return (whole, *((float(low) ** 2, float(high) ** 2) for _, low, high in self.sizes))

    def threshold_index(self, iou: float) -> int | None:
        """Position of an IoU threshold, or None when this protocol does not match at it."""
        hits = [i for i, t in enumerate(self.thresholds) if abs(t - iou) < 1e-9]
        return hits[0] if hits else None

    @property
    def at(self) -> int:
        """Index of the threshold that oLRP and the error analysis look at: IoU 0.5 or the first."""
        return self.threshold_index(0.5) or 0


COCO_SIZES = (("s", 0.0, 32.0), ("m", 32.0, 96.0), ("l", 96.0, LARGEST))
TINYPERSON_SIZES = (
    ("tiny", 1.0, 20.0),
    ("tiny1", 1.0, 8.0),
    ("tiny2", 8.0, 12.0),
    ("tiny3", 12.0, 20.0),
    ("small", 20.0, 32.0),
    ("reasonable", 32.0, LARGEST),
)
# Areas of 144, 400, 1024 and 2000 px²; "small" is the range of AP in the evaluator of SODA-A.
SODA_SIZES = (
    ("small", 0.0, 32.0),
    ("es", 0.0, 12.0),
    ("rs", 12.0, 20.0),
    ("gs", 20.0, 32.0),
    ("n", 32.0, 2000.0**0.5),
)

PROTOCOLS: dict[str, Protocol] = {
    "aitod": Protocol("aitod", sizes=AITOD_SIZES),
    "coco": Protocol("coco", sizes=COCO_SIZES, max_dets=(1, 10, 100)),
    "visdrone": Protocol(
        "visdrone", sizes=AITOD_SIZES, max_dets=(1, 10, 100, 500), ignoring="regions"
    ),
    "soda": Protocol("soda", sizes=SODA_SIZES, ignoring="regions"),
    "tinyperson": Protocol(
        "tinyperson",
        ious=(0.25, 0.5, 0.75),
        extra_ious=(),
        sizes=TINYPERSON_SIZES,
        max_dets=(200,),
        ignoring="iod",
        smallest=1.0,
    ),
}


def find_protocol(
    protocol: str | Protocol,
    sizes: Mapping[str, Sequence[float]] | None = None,
    max_dets: Sequence[int] | None = None,
    lrp: bool | None = None,
) -> Protocol:
    """Return the protocol of that name, with own size ranges, detection limits, or without oLRP.

    Raises:
        MetricError: unknown name, or a range or limit that makes no sense.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise MetricError(
                f"unknown protocol '{protocol}': {known}{did_you_mean(protocol, PROTOCOLS)}"
            )
        protocol = PROTOCOLS[protocol]
    if not isinstance(protocol, Protocol):
        raise MetricError(f"protocol {protocol!r}: one name of {', '.join(PROTOCOLS)}")
    if sizes is not None:
        if not isinstance(sizes, Mapping) or not sizes:
            raise MetricError(
                f"sizes: {sizes!r} must name size ranges, as {{vt: [0, 8], t: [8, 16]}}, in px"
            )
        protocol = replace(
            protocol, sizes=tuple(_size_range(name, bounds) for name, bounds in sizes.items())
        )
    if max_dets is not None:
        protocol = replace(protocol, max_dets=_limits(max_dets))
    return protocol if lrp is None else replace(protocol, lrp=lrp)


def _limits(max_dets: Any) -> tuple[int, ...]:
    """Check numbers of detections, and return them rising."""
    try:
        limits = tuple(sorted(int(limit) for limit in max_dets))
        if limits and limits[0] >= 1 and sorted(max_dets) == list(limits):
            return limits
    except (TypeError, ValueError, OverflowError):
        pass
    raise MetricError(f"max_dets {shorten(max_dets)}: whole numbers from 1, at least one")


def _size_range(name: object, bounds: Sequence[float]) -> tuple[str, float, float]:
    """Check one entry of `sizes:`, {name: [low, high]} in px of sqrt(area).

    High may be null or .inf.
    """
    if not isinstance(name, str) or name == "all" or not name.isidentifier():
        raise MetricError(f"sizes: '{name}' cannot name a size range; a word other than 'all' can")
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise MetricError(f"sizes: {name}: {bounds!r} must be [low, high] in px of sqrt(area)")
    low, high = bounds[0] or 0.0, LARGEST if bounds[1] is None else bounds[1]
    numbers = all(isinstance(side, int | float) for side in (low, high))
    if not numbers or not 0 <= low < min(high, LARGEST):
        shown = ", ".join(_shown(side) for side in (low, high))
        raise MetricError(
            f"sizes: {name}: [{shown}] must have 0 <= low < high, in px of sqrt(area), "
            f"and low below {LARGEST:,.0f}"
        )
    return name, float(low), float(min(high, LARGEST))  # a whole number can exceed all floats


def _shown(side: object) -> str:
    """Return a side for a message; Python refuses to write out a whole number of 5,000 digits."""
    huge = isinstance(side, int) and abs(side) >= 2**64
    return "a huge number" if huge else str(side)[:40]
