"""The words that settings choose from, declared once: the schema offers them, parts take them.

Also the names of metrics as people write them.

Parts that can be added to (detectors, backbones, distances) have their names in
`rfla/cfg/model_schema.py`, as lists.
"""

from typing import Literal

Style = Literal["pytorch", "caffe"]
"""Where a bottleneck of a ResNet strides: in the 3x3 convolution, or in the first 1x1."""

Extra = Literal["pool", "on_input", "on_output"]
"""What makes the pyramid levels above C5."""

Norm = Literal["none", "gn"]
"""Normalisation inside a dense head."""

Channels = Literal["rgb", "bgr"]
"""Order of the colours, of the network's input or of a caller's arrays."""

AssignerName = Literal["rfla", "baseline", "atss"]
"""Rule of label assignment."""

FieldsOf = Literal["authors", "traced", "measured"]
"""Where receptive fields come from: the authors' numbers, the backbone's layers, its derivative."""

Conflict = Literal["last", "smallest"]
"""Which of two boxes gets a prior that both claim."""

BoxLoss = Literal["iou", "giou", "diou", "ciou"]
"""Loss of a predicted box against its true one."""

CodeLoss = Literal["l1", "smooth_l1"]
"""Loss of an encoded box against its true code."""

Coding = Literal["distances", "field"]
"""How a point describes its box: by `boxes_to_distance`, or by `FieldCoder`."""

Quality = Literal["iou", "gaussian", "max", "kl"]
"""How well a predicted box sits: IoU, similarity as Gaussians, the larger of the two, 1/(1+KL)."""

QualityLoss = Literal["quality_focal", "varifocal"]
"""Loss of a class score that learns such a quality."""

Weighting = Literal["centerness", "quality", "equal"]
"""What a positive point weighs in the box loss."""

OptimizerName = Literal["sgd", "adamw"]
"""What moves the weights."""

Warmup = Literal["linear", "constant"]
"""How the learning rate begins."""

CachePlace = Literal["ram", "disk"]
"""Where decoded images are kept, if they are."""

Pages = Literal["all", "first"]
"""Which pages of a file of several are images."""

MergeRule = Literal["seam", "nms", "nmm", "none"]
"""How the boxes of tiles are merged at their seams."""

MergeMetric = Literal["iou", "ios"]
"""Overlap when merging: share of the union, or of the smaller box."""

ViewsName = Literal["flips", "scales"]
"""What test-time views are, if not all of them."""


def metric_label(name: str) -> str:
    """Return a metric's name as people write it.

    `ap_vt` is APvt, `ap50` AP50, `ar_1500` AR1500, `olrp_loc` oLRP loc.
    """
    family, _, part = name.partition("_")
    return f"oLRP {part}".rstrip() if family == "olrp" else f"{family.upper()}{part}"
