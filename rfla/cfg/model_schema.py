"""What can be set of a model: one typed field for each key, with its default and what it means.

`ModelConfig` holds the sections that shape the network, its targets and its losses. It is what a
weights file stores, so that a model can be rebuilt from the file alone. Bounds keep a hostile file
from asking for absurd sizes.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from rfla.cfg.backbone_names import BACKBONE_FAMILIES, TIMM
from rfla.cfg.base import (
    Count,
    Fraction,
    Integers,
    OneOf,
    PathText,
    Positive,
    Section,
    ValueRange,
)
from rfla.cfg.two_stage_schema import RoiConfig, RpnConfig
from rfla.names import (
    AssignerName,
    BoxLoss,
    Channels,
    Coding,
    Conflict,
    Extra,
    FieldsOf,
    Norm,
    Quality,
    QualityLoss,
    Style,
    Weighting,
)

# The names that a setting chooses from, for parts that can be added to. To add one, write its
# file, put it into the dict that this comment names, and append its name here: the command line,
# the help texts and the Python interface then know it. A test holds both sides together.
DETECTORS = [  # rfla.models.zoo.DETECTORS
    "fcos",
    "rfd",
    "retinanet",
    "autoassign",
    "faster_rcnn",
    "cascade_rcnn",
    "detectors",
]
BACKBONES = [  # rfla.models.backbones.build.BACKBONES
    name for family in BACKBONE_FAMILIES.values() for name in family
]
DISTANCES = [  # rfla.assign.DISTANCES
    "kld",
    "exp_kld",
    "kld_10",
    "wd",
    "nwd",
    "dotd",
    "gcd",
    "simd",
    "symmetric_kld",
    "iou",
    "giou",
    "diou",
]


# What weights files and runs say that were written when these were the only two.
EARLIER_FIELDS = {"resnet50": "authors", "backbone": "traced"}


class BackboneConfig(Section):
    """The network that makes C2 to C5."""

    name: Annotated[
        str,
        OneOf(
            BACKBONES,
            words="name of a network in docs/models.md, or timm/NAME",
            also=rf"{TIMM}[A-Za-z0-9_.]+",
        ),
    ] = Field("resnet50", description="network that computes the feature maps C2 to C5")
    style: Style = Field(
        "pytorch",
        description="where a bottleneck of a ResNet strides: pytorch in the 3x3, caffe in the "
        "first 1x1",
    )
    weights: PathText | None = Field(
        None,
        min_length=1,
        description="file that a new backbone starts from: .safetensors, or a state dict of torch; "
        "left out: see pretrained",
    )
    frozen_stages: int = Field(
        1,
        ge=-1,
        le=4,
        description="freeze the stem (0) and the first n stages (1 to 4); -1 freezes nothing",
    )
    norm_eval: bool = Field(
        True, description="keep batch norm on its stored statistics while training"
    )
    norm_trainable: bool = Field(True, description="let the scale and shift of batch norm learn")


class NeckConfig(Section):
    """The feature pyramid."""

    width: int = Field(256, ge=8, le=2048, description="channels of every pyramid level")
    start_level: int = Field(
        2,
        ge=1,
        le=4,
        description="finest pyramid level: 1 is P1 (stride 2), 2 is P2 (stride 4), 3 is P3 "
        "(stride 8)",
    )
    levels: int = Field(5, ge=1, le=6, description="number of pyramid levels")
    extra: Extra = Field(
        "pool",
        description="levels above C5: pool (stride-2 max pooling), or stride-2 convolutions on C5 "
        "(on_input) or on the last output (on_output)",
    )
    relu_before_extra: bool = Field(False, description="ReLU between two extra convolutions")
    bottom_up: bool = Field(
        False, description="add a path through the pyramid from fine to coarse (PANet)"
    )
    steps: int = Field(
        2, ge=1, le=4, description="passes through the backbone of a recursive pyramid (detectors)"
    )


class HeadConfig(Section):
    """The dense head, or the RPN tower of a two-stage detector."""

    width: int = Field(256, ge=8, le=2048, description="channels inside the head")
    depth: int = Field(
        4, ge=0, le=8, description="3x3 convolutions of each branch before the prediction"
    )
    norm: Norm = Field(
        "none", description="normalisation inside the dense head: none or group norm"
    )
    second_look: int = Field(
        0,
        ge=0,
        le=7,
        description="rfd: refine each box by a second look at S x S places on it in the finest "
        "map; 0: no second look",
    )


class AssignerConfig(Section):
    """Label assignment: which priors are positive for which box."""

    name: AssignerName = Field(
        "rfla",
        description="label assignment: rfla, baseline (what the paper compares against) or atss",
    )
    distance: Annotated[str, OneOf(DISTANCES)] = Field(
        "kld", description="score between a box and a receptive field"
    )
    topk: Integers = Field(
        (3, 1),
        description="priors (points or anchors) that become positives of a box: in the first "
        "stage, then again in the second, with smaller fields",
    )
    decay: float = Field(
        0.9, gt=0, le=1, description="factor on the receptive fields from one stage to the next"
    )
    fraction: float = Field(
        0.5, gt=0, le=4, description="share of the theoretical receptive field that is effective"
    )
    fields: FieldsOf | Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        "authors",
        description="full receptive fields: those of the authors (ResNet-50), traced through the "
        "backbone, measured on images, or a side in px for each level",
    )
    refresh_fields: int = Field(
        0,
        ge=0,
        le=100_000,
        description="fields=measured: measure again every so many epochs of training; 0: never",
    )
    centers_inside: bool = Field(False, description="only priors whose centre lies inside the box")
    ignore_above: float | None = Field(
        0.8,
        ge=0,
        le=1,
        description="an unassigned prior that scores this or more is ignored; null switches it off",
    )
    conflict: Conflict = Field("last", description="which box wins a prior that two boxes claim")
    allowed_border: int = Field(
        -1,
        ge=-1,
        le=100_000,
        description="px by which an anchor may exceed the image; -1: any (anchor heads)",
    )
    center_radius: float = Field(
        1.5,
        ge=0,
        le=64,
        description="baseline of fcos: radius round the box centre in strides; 0: the whole box",
    )
    atss_topk: int = Field(9, ge=1, le=1000, description="atss: candidates for each box and level")

    @field_validator("fields", mode="before")
    @classmethod
    def _sides(cls, fields: object) -> object:
        if isinstance(fields, str):
            return EARLIER_FIELDS.get(fields, fields)
        numbers = fields if isinstance(fields, list | tuple) else ()
        if not all(isinstance(side, int | float) and 0 < side <= 1e6 for side in numbers):
            raise ValueError("sides of fields are numbers above 0, px, one for each pyramid level")
        return fields

    @field_validator("topk")
    @classmethod
    def _bounded(cls, topk: tuple[int, ...]) -> tuple[int, ...]:
        if len(topk) != 2 or not all(1 <= k <= 1000 for k in topk):
            raise ValueError(
                "two whole numbers from 1 to 1000 are needed, for the two stages, e.g. [3, 1]"
            )
        return topk


class LossConfig(Section):
    """Losses of a dense head; a two-stage detector has its own under `rpn` and `roi`."""

    box: BoxLoss = Field("diou", description="box loss of a dense head")
    box_weight: Positive = Field(1.0, description="weight of the box loss")
    cls_weight: Positive = Field(1.0, description="weight of the focal classification loss")
    centerness_weight: Positive = Field(1.0, description="weight of the centerness loss")
    focal_alpha: Fraction = Field(
        0.25, description="focal loss: weight of positives against negatives"
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="focal loss: how quickly easy examples are down-weighted"
    )
    coding: Coding = Field(
        "distances",
        description="fcos, autoassign: a box as distances to its sides, or the signed code of rfd "
        "(field)",
    )
    quality: Literal["none", Quality] = Field(
        "none",
        description="rfd, fcos, retinanet: measure of fit that the class score learns: IoU, "
        "similarity as Gaussians, the larger of the two, or 1 / (1 + KL) of the Gaussians; "
        "none (not rfd): the class alone",
    )
    cls: QualityLoss = Field(
        "quality_focal", description="loss of class scores that learn a quality"
    )
    centerness: bool | None = Field(
        None,
        description="fcos: predict centerness and multiply the scores by it; left out: only where "
        "the quality is none",
    )
    weighting: Weighting | None = Field(
        None,
        description="fcos: what a positive weighs in the box loss; left out: centerness where the "
        "quality is none, otherwise equal",
    )
    side_weight: float = Field(
        0.5,
        ge=0,
        le=1e6,
        description="rfd, coding=field: weight of the loss on the logarithm of the sides",
    )
    look_weight: Positive = Field(
        2.0, description="rfd: weight of the loss on the boxes of the second look"
    )


class AnchorConfig(Section):
    """Anchors of RetinaNet and of the region proposals, and the baseline's rule on them.

    With `assigner=rfla` an anchor is the effective receptive field in each of the `ratios`, and the
    other keys rest.
    """

    ratios: tuple[Positive, ...] = Field(
        (0.5, 1.0, 2.0), description="anchor shapes, height / width"
    )
    scale: Positive = Field(
        8.0, description="baseline: side of the smallest anchor as a multiple of the stride"
    )
    octave_scales: int = Field(
        1, ge=1, le=8, description="baseline: anchor sizes for each doubling of the scale"
    )
    pos_iou: Fraction = Field(0.7, description="baseline: IoU from which an anchor is positive")
    neg_iou: Fraction = Field(0.3, description="baseline: IoU below which an anchor is background")
    min_pos_iou: Fraction = Field(
        0.3, description="baseline: least IoU of the best anchor that a box may claim"
    )

    @field_validator("ratios")
    @classmethod
    def _bounded(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(ratios) <= 16:
            raise ValueError("takes 1 to 16 numbers, e.g. [0.5, 1, 2]")
        return ratios

    @model_validator(mode="after")
    def _background_is_below(self) -> Self:
        if self.neg_iou > self.pos_iou:
            raise ValueError(
                f"anchors.neg_iou={self.neg_iou:g} must not be above "
                f"anchors.pos_iou={self.pos_iou:g}"
            )
        return self


class TestConfig(Section):
    """From raw predictions to detections."""

    conf: Fraction = Field(0.0, description="lowest final score to keep")
    score_thr: Fraction = Field(
        0.05,
        description="class scores below it are dropped, before centerness weighs in (dense heads)",
    )
    nms_iou: Fraction = Field(
        0.5, description="IoU above which a box suppresses another of its class"
    )
    nms_pre: Count = Field(
        3000, description="dense heads: candidates of each level before suppression"
    )
    max_det: Count = Field(3000, description="detections kept for each image")


class NormalizeConfig(Section):
    """How pixels become the network's input: (pixel - mean) / std."""

    mean: tuple[float, float, float] = Field(
        (123.675, 116.28, 103.53),
        description="mean in the order of `channels`, of pixels from 0 to 255",
    )
    std: tuple[Positive, Positive, Positive] = Field(
        (58.395, 57.12, 57.375), description="standard deviation in the order of `channels`"
    )
    channels: Channels = Field("rgb", description="channel order of the network's input")
    range: ValueRange | None = Field(
        None,
        description="values that become 0 and 255 in images of more than 8 bits, lowest and "
        "highest; left out: found in each file, but for range_16",
    )
    range_16: ValueRange | None = Field(
        None,
        description="the same for 16-bit images that do not state their range; left out: training "
        "finds one for the whole set",
    )


class ModelConfig(Section):
    """All sections that shape a model."""

    detector: Annotated[str, OneOf(DETECTORS)] = Field("fcos", description="architecture")
    backbone: BackboneConfig = Field(BackboneConfig(), description="feature extractor")
    neck: NeckConfig = Field(NeckConfig(), description="feature pyramid")
    head: HeadConfig = Field(HeadConfig(), description="prediction head")
    assigner: AssignerConfig = Field(AssignerConfig(), description="label assignment")
    loss: LossConfig = Field(LossConfig(), description="losses of a dense head")
    anchors: AnchorConfig = Field(
        AnchorConfig(), description="anchors of retinanet and of the region proposals"
    )
    rpn: RpnConfig = Field(RpnConfig(), description="region proposals")
    roi: RoiConfig = Field(RoiConfig(), description="second stage")
    test: TestConfig = Field(TestConfig(), description="decoding and suppression")
    normalize: NormalizeConfig = Field(NormalizeConfig(), description="input normalisation")
