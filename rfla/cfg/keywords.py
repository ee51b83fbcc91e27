"""Keyword arguments of the methods of `RFLA`, for editors and type checkers.

Generated from rfla/cfg/schema.py and verbs.py by `python -m rfla.cfg.document`: do not edit.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict

Text = str | PathLike[str]


class BackboneSection(TypedDict, total=False):
    """Section `backbone`."""

    name: str
    style: Literal["pytorch", "caffe"]
    weights: str | None
    frozen_stages: int
    norm_eval: bool
    norm_trainable: bool


class NeckSection(TypedDict, total=False):
    """Section `neck`."""

    width: int
    start_level: int
    levels: int
    extra: Literal["pool", "on_input", "on_output"]
    relu_before_extra: bool
    bottom_up: bool
    steps: int


class HeadSection(TypedDict, total=False):
    """Section `head`."""

    width: int
    depth: int
    norm: Literal["none", "gn"]
    second_look: int


class AssignerSection(TypedDict, total=False):
    """Section `assigner`."""

    name: Literal["rfla", "baseline", "atss"]
    distance: str
    topk: Sequence[int]
    decay: float
    fraction: float
    fields: Literal["authors", "traced", "measured"] | Sequence[float]
    refresh_fields: int
    centers_inside: bool
    ignore_above: float | None
    conflict: Literal["last", "smallest"]
    allowed_border: int
    center_radius: float
    atss_topk: int


class LossSection(TypedDict, total=False):
    """Section `loss`."""

    box: Literal["iou", "giou", "diou", "ciou"]
    box_weight: float
    cls_weight: float
    centerness_weight: float
    focal_alpha: float
    focal_gamma: float
    coding: Literal["distances", "field"]
    quality: Literal["none", "iou", "gaussian", "max", "kl"]
    cls: Literal["quality_focal", "varifocal"]
    centerness: bool | None
    weighting: Literal["centerness", "quality", "equal"] | None
    side_weight: float
    look_weight: float


class AnchorsSection(TypedDict, total=False):
    """Section `anchors`."""

    ratios: Sequence[float]
    scale: float
    octave_scales: int
    pos_iou: float
    neg_iou: float
    min_pos_iou: float


class RpnSection(TypedDict, total=False):
    """Section `rpn`."""

    target_anchor_scale: float
    samples: int
    pos_fraction: float
    box_loss: Literal["l1", "smooth_l1"]
    beta: float
    quality: Literal["none", "iou", "gaussian", "max", "kl"]
    nms_pre: int
    nms_iou: float
    max_proposals: int


class RoiSection(TypedDict, total=False):
    """Section `roi`."""

    pool_size: int
    finest_scale: float
    width: int
    class_agnostic: bool
    pos_iou: Sequence[float]
    stage_weights: Sequence[float]
    stds: Sequence[Sequence[float]]
    samples: int
    pos_fraction: float
    box_loss: Literal["l1", "smooth_l1"]
    beta: float


class TestSection(TypedDict, total=False):
    """Section `test`."""

    conf: float
    score_thr: float
    nms_iou: float
    nms_pre: int
    max_det: int


class NormalizeSection(TypedDict, total=False):
    """Section `normalize`."""

    mean: Sequence[float]
    std: Sequence[float]
    channels: Literal["rgb", "bgr"]
    range: Sequence[float] | None
    range_16: Sequence[float] | None


class AugSection(TypedDict, total=False):
    """Section `aug`."""

    fliplr: float
    flipud: float
    rot90: float
    zoom: float
    scale: float
    min_visible: float
    mosaic: float
    close_mosaic: float
    hsv_h: float
    hsv_s: float
    hsv_v: float
    blur: float
    noise: float


class TrainSettings(TypedDict, total=False):
    """Keys of `RFLA.train`; a section may be given as a dict."""

    data: Text | None
    recipe: str
    imgsz: int
    batch: int
    gsd: float | None
    device: str | int | Sequence[int]
    workers: int
    timeout: float
    project: Text
    name: str | None
    exist_ok: bool
    resume: bool | Text
    seed: int
    deterministic: bool
    amp: bool | Literal["bf16", "fp16"]
    compile: bool
    fraction: float
    cache: Literal["off", "ram", "disk"] | bool
    max_pixels: int
    single_cls: bool
    plots: bool
    gallery: int
    verbose: bool
    debug: bool
    epochs: int
    train_split: str
    time: float | None
    patience: int
    accumulate: int
    pretrained: bool
    save_period: int
    save_minutes: float
    freeze: Sequence[str] | str
    multi_scale: float
    val: bool
    tensorboard: bool
    optimizer: Literal["sgd", "adamw"]
    lr0: float
    lr_batch: int
    momentum: float
    weight_decay: float
    bias_lr_mult: float
    bias_decay: float
    norm_decay: float
    backbone_lr_mult: float
    lr_steps: Sequence[int] | int
    lr_gamma: float
    cos_lr: bool
    lrf: float
    warmup: Literal["linear", "constant"]
    warmup_iters: int
    warmup_ratio: float
    clip_grad: float
    ema: float
    split: str
    protocol: str | None
    conf: float | None
    iou: float | None
    max_det: int | None
    cfg: Text
    backbone: str | BackboneSection
    neck: NeckSection
    head: HeadSection
    assigner: str | AssignerSection
    loss: LossSection
    anchors: AnchorsSection
    rpn: RpnSection
    roi: RoiSection
    test: TestSection
    normalize: NormalizeSection
    aug: AugSection


class ValSettings(TypedDict, total=False):
    """Keys of `RFLA.val`; a section may be given as a dict."""

    data: Text | None
    imgsz: int
    batch: int
    gsd: float | None
    device: str | int | Sequence[int]
    workers: int
    timeout: float
    project: Text
    name: str | None
    exist_ok: bool
    amp: bool | Literal["bf16", "fp16"]
    fraction: float
    cache: Literal["off", "ram", "disk"] | bool
    max_pixels: int
    single_cls: bool
    plots: bool
    gallery: int
    verbose: bool
    debug: bool
    split: str
    protocol: str | None
    engine: Literal["rfla", "pycocotools", "faster-coco-eval"]
    predictions: Text | None
    save_json: bool
    conf: float | None
    iou: float | None
    max_det: int | None
    tta: bool | Literal["flips", "scales"]
    slice: int | Literal["auto"] | None
    overlap: float | None
    merge: Literal["seam", "nms", "nmm", "none"]
    merge_metric: Literal["iou", "ios"]
    merge_classes: bool
    cfg: Text
    test: TestSection


class PredictSettings(TypedDict, total=False):
    """Keys of `RFLA.predict`; a section may be given as a dict."""

    imgsz: int
    batch: int
    gsd: float | None
    device: str | int | Sequence[int]
    timeout: float
    project: Text
    name: str | None
    exist_ok: bool
    resume: bool | Text
    amp: bool | Literal["bf16", "fp16"]
    max_pixels: int
    verbose: bool
    debug: bool
    conf: float | None
    iou: float | None
    max_det: int | None
    recursive: bool
    vid_stride: int
    pages: Literal["all", "first"]
    save: bool
    save_txt: bool
    save_conf: bool
    save_csv: bool
    save_video: bool
    save_density: bool
    classes: Sequence[int | str] | int | str
    line_width: int | None
    show_labels: bool | None
    legend: bool
    scale: int | None
    geo: Literal["geojson", "gpkg", "both", "off"]
    geo_crs: Literal["raster", "wgs84"]
    save_crop: bool
    agnostic_nms: bool
    tta: bool | Literal["flips", "scales"]
    slice: int | Literal["auto"] | None
    overlap: float | None
    merge: Literal["seam", "nms", "nmm", "none"]
    merge_metric: Literal["iou", "ios"]
    merge_classes: bool
    cfg: Text
    test: TestSection


class ExportSettings(TypedDict, total=False):
    """Keys of `RFLA.export`."""

    format: Literal["onnx", "torch_export", "torchscript"]
    out: Text | None
    half: bool
    int8: bool
    nms: bool
    dynamic: bool
    batch: int
    imgsz: int | None
    input: Literal["uint8", "float"]
    opset: int
    conf: float | None
    iou: float | None
    max_det: int | None
    data: Text | None
    split: str
    calibration_split: str
    calibration_images: int
    max_loss: float
    force: bool
    overwrite: bool
    debug: bool
