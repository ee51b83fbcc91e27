"""Every setting of a run: one typed, documented field for each key.

`rfla/cfg/default.yaml` and the tables of `docs/configuration.md` are generated from this file
(`python -m rfla.cfg.document`) and tested against it. The sections of the model are in
`model_schema.py`, that of augmentation in `aug_schema.py`. Sizes are in pixels of the network
input; shares are between 0 and 1.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, field_validator

from rfla.cfg.aug_schema import AugConfig
from rfla.cfg.base import FrozenNames, Integers, NamesOrNumbers, OneOf, PathText
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.recipes import RECIPES
from rfla.names import CachePlace, MergeMetric, MergeRule, OptimizerName, Pages, ViewsName, Warmup
from rfla.sizes import MAX_PIXELS

Mode = Literal["train", "val", "predict"]

# The first key of each group of flat settings, in the order of the class below: headings of docs
# and of `rfla help`.
GROUPS = {
    "model": "Model, data and run",
    "epochs": "Training",
    "optimizer": "Optimiser and schedule",
    "split": "Validation",
    "conf": "Detections that are kept",
    "source": "Prediction",
    "detector": "Architecture (the model YAML sets it, and the sections of the model below)",
}


def _device_text(value: Any) -> Any:
    """Accept `0`, `[0, 1]`, `0,1`, `cuda:0`, `cpu`, nothing; keep one text form."""
    if value is None or value == "":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value).__name__ == "device":  # torch's, which need not be imported here
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(part, int | str) for part in value):
        return ",".join(str(part) for part in value)
    return value.replace(" ", "").strip("[](),").lower() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _cache_place(value: Any) -> Any:
    """`cache` as a bare word, or `cache=true`, means memory."""
    if isinstance(value, bool):
        return "ram" if value else "off"
    return "off" if value is None else _lower(value)


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda|(cuda:)?\d{1,4}(,(cuda:)?\d{1,4})*", value):
        raise ValueError("must be auto, cpu, mps, cuda, a GPU number, or several like 0,1")
    return value


SliceSize = Annotated[
    Annotated[int, Field(ge=32, le=16384)] | Literal["auto"], BeforeValidator(_lower)
]


Device = Annotated[str, BeforeValidator(_device_text), AfterValidator(_known_device)]


class Config(ModelConfig):
    """The settings of one run. Frozen; made by `rfla.cfg.load_config`.

    `given` names the keys that the user gave.
    """

    # --- model, data and run
    model: PathText | None = Field(
        None,
        description="train: zoo name, model YAML, or weights (.safetensors) to train further; val "
        "and predict: weights, or an exported network (.onnx); left out: the latest",
    )
    data: str | None = Field(
        None,
        description="data set: a name (demo, aitod, ...), a data.yaml, or a directory",
    )
    recipe: Annotated[str, OneOf(RECIPES)] = Field(
        "paper",
        description="named set of training settings; what you set yourself wins over it. scratch "
        "and best are for random weights; paper sets nothing",
    )
    imgsz: int = Field(
        800,
        ge=32,
        le=16384,
        description="resize the long side to this many px, keep the aspect, pad to the stride; "
        "left out in val and predict: as in training",
    )
    batch: int = Field(
        2,
        ge=-1,
        le=65536,
        description="images per training step, over all devices together; -1: as many as fit on "
        "the GPU. In val images at a time, in predict images or slices; left out on a GPU: 16 of "
        "800 px",
    )
    gsd: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="ground sampling distance of the images in metres per pixel; predict resizes "
        "them to what the network was trained at",
    )
    device: Device = Field(
        "auto", description="auto, cpu, mps, a GPU number, or several: device=0,1"
    )
    workers: int = Field(4, ge=0, le=256, description="loader processes for each device")
    timeout: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="end the run when a loader process or another process of the run has been "
        "silent for this many seconds",
    )
    project: PathText = Field("runs", min_length=1, description="directory that holds the runs")
    name: str | None = Field(
        None, min_length=1, description="directory of the run inside project; left out: the verb"
    )
    exist_ok: bool = Field(
        False,
        description="write into an existing run directory, in which files of an earlier run stay; "
        "else create name2, name3, ...",
    )
    resume: bool | str = Field(
        False,
        description="continue a run of train or predict: its directory, or true for the latest one",
    )
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="seed of weights, sample order and augmentation"
    )
    deterministic: bool = Field(
        False, description="use only bit-reproducible algorithms on a GPU (slower)"
    )
    amp: Annotated[bool | Literal["bf16", "fp16"], BeforeValidator(_lower)] = Field(
        True,
        description="mixed precision on a GPU, bf16 where supported; amp=bf16: on such a CPU too",
    )
    compile: bool = Field(False, description="compile the network with torch.compile")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1e9,
        description="share of the images to use; above 1, the number of images",
    )
    cache: Annotated[Literal["off", CachePlace], BeforeValidator(_cache_place)] = Field(
        "off", description="keep decoded images in memory (ram, or true) or as files (disk)"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=10**12,
        description="largest image that is decoded, in pixels: width times height",
    )
    single_cls: bool = Field(False, description="treat all classes as one")
    plots: bool = Field(True, description="write the pictures and curves of the run")
    gallery: int = Field(
        60, ge=0, le=5000, description="images in report.html, two thirds of them the worst"
    )
    verbose: bool = Field(
        True,
        description="print the settings and the per-class table; predict: a line for each image",
    )
    debug: bool = Field(
        False, description="show the full traceback of an error instead of one line"
    )

    # --- training
    epochs: int = Field(12, ge=1, le=100_000, description="passes over the training images")
    train_split: str = Field(
        "train", min_length=1, description="split to train on; the papers use trainval"
    )
    time: float | None = Field(
        None,
        gt=0,
        description="stop after this many hours if epochs= would take longer; the learning rate "
        "decays within that time",
    )
    patience: int = Field(
        0, ge=0, description="stop after this many epochs without a better AP; 0: never"
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="batches whose gradients are accumulated for one optimiser step",
    )
    pretrained: bool = Field(
        True, description="start the backbone from ImageNet weights of its library"
    )
    save_period: int = Field(
        -1, ge=-1, description="also keep weights/epochN every this many epochs; -1: never"
    )
    save_minutes: float = Field(
        0.0,
        ge=0,
        description="also save the state every this many minutes; 0: only after each epoch",
    )
    freeze: FrozenNames = Field(
        (), description="freeze parameters whose names start with one of these"
    )
    multi_scale: float = Field(
        0.0, ge=0, lt=1, description="vary imgsz between batches by up to this share"
    )
    val: bool = Field(True, description="validate after every epoch")
    tensorboard: bool = Field(False, description="also log for TensorBoard (extra: [log])")

    # --- optimiser and schedule
    optimizer: Annotated[OptimizerName, BeforeValidator(_lower)] = Field(
        "sgd", description="optimiser"
    )
    lr0: float = Field(0.005, ge=0, le=10, description="learning rate after warm-up")
    lr_batch: int = Field(
        0,
        ge=0,
        description="batch that lr0 was chosen for; the rate is lr0 * batch * accumulate / "
        "lr_batch. 0: lr0",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, beta1 of AdamW")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="weight decay")
    bias_lr_mult: float = Field(
        1.0, ge=0, le=100, description="learning rate of biases as a multiple of lr0"
    )
    bias_decay: float = Field(
        0.0, ge=0, le=100, description="weight decay of biases as a multiple of weight_decay"
    )
    norm_decay: float = Field(
        1.0, ge=0, le=100, description="weight decay of norm layers, multiple of weight_decay"
    )
    backbone_lr_mult: float = Field(
        1.0, ge=0, le=100, description="learning rate of the backbone as multiple of lr0"
    )
    lr_steps: Integers = Field(
        (8, 11), description="epochs after which the rate is multiplied by lr_gamma"
    )
    lr_gamma: float = Field(0.1, gt=0, le=1, description="factor of each step")
    cos_lr: bool = Field(False, description="cosine decay to lr0 * lrf instead of steps")
    lrf: float = Field(
        0.01, ge=0, le=1, description="final learning rate of the cosine, as a share of lr0"
    )
    warmup: Annotated[Warmup, BeforeValidator(_lower)] = Field(
        "linear",
        description="learning rate in the first warmup_iters steps: linear rises from "
        "warmup_ratio * lr0 to the full rate, constant stays at warmup_ratio * lr0",
    )
    warmup_iters: int = Field(5000, ge=0, description="warm-up steps; at most a tenth of the run")
    warmup_ratio: float = Field(
        1e-3, ge=0, le=1, description="learning rate at the first step, as a share of lr0"
    )
    clip_grad: float = Field(
        35.0, ge=0, description="clip the gradient to this norm; 0: no clipping"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the weight average that is validated and saved; 0: none",
    )

    # --- validation
    split: str = Field(
        "val", min_length=1, description="split to validate on; joined ones (trainval) work too"
    )
    protocol: str | None = Field(
        None, description="evaluation protocol; left out: the one in the data YAML"
    )
    engine: Literal["rfla", "pycocotools", "faster-coco-eval"] = Field(
        "rfla",
        description="evaluator that val uses; the metrics of a reference are shown beside rfla's",
    )
    predictions: PathText | None = Field(
        None, description="COCO detections file to evaluate instead of running a model"
    )
    save_json: bool = Field(True, description="val: write predictions.json, for 'rfla compare'")

    # --- detections that are kept
    conf: float | None = Field(
        None,
        ge=0,
        le=1,
        description="lowest score to keep; left out: test.conf, and 0.25 for predict",
    )
    iou: float | None = Field(
        None, gt=0, le=1, description="IoU above which NMS drops a box; left out: test.nms_iou"
    )
    max_det: int | None = Field(
        None, ge=1, le=100_000, description="most boxes per image; left out: test.max_det"
    )

    # --- prediction
    source: PathText | None = Field(
        None,
        description="image, video, directory, glob pattern, text file of paths, http(s) address, "
        "or number of a camera",
    )
    recursive: bool = Field(True, description="search directories with their subdirectories")
    vid_stride: int = Field(
        1, ge=1, le=100_000, description="predict every Nth frame of videos and animations"
    )
    pages: Annotated[Pages, BeforeValidator(_lower)] = Field(
        "all", description="pages of a TIFF and frames of an animation: all, or the first one"
    )
    save: bool = Field(
        True, description="write annotated pictures; for large scenes an overview with details"
    )
    save_txt: bool = Field(False, description="write labels/*.txt in YOLO format")
    save_conf: bool = Field(
        False, description="add the score as the last column of the text labels"
    )
    save_csv: bool = Field(False, description="write all boxes as predictions.csv")
    save_video: bool = Field(
        False, description="write videos with boxes, instead of a picture for each frame"
    )
    save_density: bool = Field(False, description="write maps of object density to density/*.png")
    classes: NamesOrNumbers = Field((), description="keep these classes only, by name or number")
    line_width: int | None = Field(
        None, ge=1, le=100, description="width of the box lines in px; left out: by size"
    )
    show_labels: bool | None = Field(
        None,
        description="draw class names at the boxes; left out: where there is room, for up to 60 "
        "boxes of 16 px and more",
    )
    legend: bool = Field(True, description="draw a legend of the classes below pictures")
    scale: int | None = Field(
        None, ge=1, le=16, description="enlarge pictures by this factor; left out: by size"
    )
    geo: Annotated[Literal["geojson", "gpkg", "both", "off"], BeforeValidator(_lower)] = Field(
        "geojson",
        description="write boxes of a GeoTIFF for maps (extra: [geo]): GeoJSON, GeoPackage",
    )
    geo_crs: Annotated[Literal["raster", "wgs84"], BeforeValidator(_lower)] = Field(
        "raster", description="coordinates for geo=: the raster's own, or WGS84 degrees"
    )
    save_crop: bool = Field(False, description="write the pixels of each box as crops/CLASS/*.png")
    agnostic_nms: bool = Field(
        False, description="apply NMS across classes, so that the best box stays"
    )
    tta: Annotated[bool | ViewsName, BeforeValidator(_lower)] = Field(
        False,
        description="test-time augmentation: mirror images (flips, 4 x the time), 0.8 and 1.25 "
        "times the size (scales, 3.2 x), or both (true, 6.2 x)",
    )
    slice: SliceSize | None = Field(
        None,
        description="predict in overlapping slices of this many px; auto: of imgsz px",
    )
    overlap: float | None = Field(
        None,
        ge=0,
        le=16384,
        description="overlap of slices in px, or as a share below 1; left out: the largest object "
        "seen in training plus 8 px, else 0.2",
    )
    merge: Annotated[MergeRule, BeforeValidator(_lower)] = Field(
        "seam", description="how boxes of slices are merged; see docs/prediction.md"
    )
    merge_metric: Annotated[MergeMetric, BeforeValidator(_lower)] = Field(
        "iou", description="overlap measure of merging: IoU, or intersection over the smaller box"
    )
    merge_classes: bool = Field(False, description="merge boxes of different classes too")

    # --- augmentation of the training images
    aug: AugConfig = Field(
        default_factory=AugConfig, description="augmentation of the training images"
    )

    _given: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def given(self) -> frozenset[str]:
        """Dotted keys that the user gave, on the command line or in their own `cfg=` file."""
        return self._given

    @field_validator("batch")
    @classmethod
    def _batch_is_not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be at least 1, or -1 for the largest that fits")
        return value

    @field_validator("lr_steps")
    @classmethod
    def _steps_rise(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(step < 1 for step in value) or list(value) != sorted(set(value)):
            raise ValueError("must be epochs that rise, for example [8,11]")
        return value
