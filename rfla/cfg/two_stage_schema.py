"""What can be set of the two-stage detectors: their region proposals and their second stage."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rfla.cfg.base import Count, Fraction, Positive, Section
from rfla.names import CodeLoss, Quality


class RpnConfig(Section):
    """Region proposals of the two-stage detectors."""

    target_anchor_scale: float = Field(
        1.0,
        gt=0,
        le=2,
        description="anchors that targets are encoded against; 0.9 repeats the authors' training",
    )
    samples: int = Field(
        256, ge=1, le=1_000_000_000, description="anchors sampled per image for the loss"
    )
    pos_fraction: Fraction = Field(0.5, description="largest share of positives among them")
    box_loss: CodeLoss = Field("l1", description="loss of the encoded boxes")
    beta: Positive = Field(1 / 9, description="smooth_l1: where it turns from square to linear")
    quality: Literal["none", Quality] = Field(
        "none",
        description="what the objectness of a positive learns: 1 (none), or how well the proposal "
        "sits, see loss.quality",
    )
    nms_pre: Count = Field(3000, description="candidates of each level before suppression")
    nms_iou: Fraction = Field(0.7, description="IoU above which a proposal suppresses another")
    max_proposals: Count = Field(3000, description="proposals kept for each image")


class RoiConfig(Section):
    """Second stage of the two-stage detectors.

    Keys in brackets hold one value for each stage of a cascade.
    """

    pool_size: int = Field(
        7, ge=1, le=32, description="cells per side that RoIAlign pools a proposal into"
    )
    finest_scale: Positive = Field(
        56.0, description="proposals with sides below twice this (px) use the finest level"
    )
    width: int = Field(1024, ge=8, le=8192, description="channels of the two shared layers")
    class_agnostic: bool = Field(False, description="one box for all classes")
    pos_iou: tuple[Fraction, ...] = Field(
        (0.5,), description="IoU from which a proposal is positive, for each stage"
    )
    stage_weights: tuple[Positive, ...] = Field(
        (1.0,), description="weight of the losses, for each stage"
    )
    stds: tuple[tuple[Positive, Positive, Positive, Positive], ...] = Field(
        ((0.1, 0.1, 0.2, 0.2),),
        description="what the encoded boxes (dx, dy, dw, dh) are divided by, for each stage",
    )
    samples: int = Field(
        512, ge=1, le=1_000_000_000, description="proposals sampled per image for the loss"
    )
    pos_fraction: Fraction = Field(0.25, description="largest share of positives among them")
    box_loss: CodeLoss = Field("l1", description="loss of the encoded boxes")
    beta: Positive = Field(1.0, description="smooth_l1: where it turns from square to linear")

    @model_validator(mode="after")
    def _one_value_for_each_stage(self) -> Self:
        stages = len(self.pos_iou)
        if not 1 <= stages <= 8 or not stages == len(self.stage_weights) == len(self.stds):
            raise ValueError(
                "roi.pos_iou, roi.stage_weights and roi.stds need one value for each stage, "
                "1 to 8 stages"
            )
        return self


def smooth_l1_beta(section: RpnConfig | RoiConfig) -> float:
    """Return where the loss of the encoded boxes turns from square to linear; 0 for plain L1."""
    return {"smooth_l1": section.beta, "l1": 0.0}[section.box_loss]
