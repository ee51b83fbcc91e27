"""Words of other tools, each with what there is here instead.

Nothing below is accepted: every key and verb has one name. It only decides what the one line of an
error says. When rfla learns one of these things, its entry goes.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from rfla.cfg.weights_header import is_weights

VERBS: Mapping[str, str] = {
    "eval": "the verb is val: rfla val data=...",
    "evaluate": "the verb is val: rfla val data=...",
    "finetune": "the verb is train: rfla train model=best.safetensors data=...",
    "fit": "the verb is train: rfla train model=fcos_p2 data=...",
    "infer": "the verb is predict: rfla predict source=...",
    "inference": "the verb is predict: rfla predict source=...",
    "resume": "a run is continued by train: rfla train resume=runs/train",
    "test": "the verb is val: rfla val data=... split=test",
    "track": "there is no tracking; images are predicted one by one: rfla predict source=...",
    "tune": "there is no search for settings; 'rfla help recipe' lists named sets of them",
    "validate": "the verb is val: rfla val data=...",
    "yolo": "the command is rfla: rfla train model=fcos_p2 data=...",
} | {
    task: "rfla detects boxes alone, and needs no word for the task: rfla train data=..."
    for task in ("segment", "classify", "pose", "obb")
}

# Keys that have a name here.
ALIASES: Mapping[str, str] = {
    "anchor_scale": "anchors.scale",
    "batch_size": "batch",
    "bs": "batch",
    "cfg_options": "cfg",
    "checkpoint": "model",
    "ckpt": "model",
    "clip_grad_norm": "clip_grad",
    "conf_thres": "conf",
    "confidence": "conf",
    "config": "cfg",
    "dataset": "data",
    "detections": "predictions",
    "early_stopping": "patience",
    "file": "source",
    "flip": "aug.fliplr",
    "folder": "source",
    "fp16": "amp",
    "geojson": "geo",
    "gpkg": "geo",
    "gpu": "device",
    "gpus": "device",
    "grad_accum": "accumulate",
    "grad_accum_steps": "accumulate",
    "gradient_accumulation": "accumulate",
    "half": "amp",
    "hide_labels": "show_labels",
    "image_size": "imgsz",
    "images": "source",
    "img": "imgsz",
    "img_size": "imgsz",
    "input": "source",
    "iou_thres": "iou",
    "iterations": "epochs",
    "k": "assigner.topk",
    "learning_rate": "lr0",
    "line_thickness": "line_width",
    "lr": "lr0",
    "max_epochs": "epochs",
    "maxdets": "max_det",
    "model_confidence_threshold": "conf",
    "model_path": "model",
    "metric": "protocol",
    "milestones": "lr_steps",
    "mixed_precision": "amp",
    "multiscale": "multi_scale",
    "nbs": "accumulate",
    "nms": "iou",
    "nms_iou": "iou",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "opt": "optimizer",
    "out": "project",
    "output": "project",
    "output_dir": "project",
    "overlap_height_ratio": "overlap",
    "overlap_width_ratio": "overlap",
    "path": "data",
    "postprocess_class_agnostic": "merge_classes",
    "postprocess_match_metric": "merge_metric",
    "postprocess_type": "merge",
    "random_seed": "seed",
    "resume_from": "resume",
    "save_dir": "project",
    "score_threshold": "conf",
    "size": "imgsz",
    "slice_height": "slice",
    "slice_width": "slice",
    "threshold": "conf",
    "total_epochs": "epochs",
    "val_split": "split",
    "warmup_epochs": "warmup_iters",
    "warmup_steps": "warmup_iters",
    "wd": "weight_decay",
    "weights": "model",
    "work_dir": "project",
    "workers_per_gpu": "workers",
    "yaml": "cfg",
}

_AUGMENTATIONS = "the augmentations are listed by 'rfla help aug'"
_SLICES_ALONE = "slice= predicts the slices alone; without it the image is predicted whole"

# Keys without a counterpart here, or with one that counts in another way.
NO_KEYS: Mapping[str, str] = {
    "augment": "at test time it is tta=true (or flips, scales); that of training is under aug.*",
    "auto_augment": _AUGMENTATIONS,
    "box": "weights of losses are loss.box_weight and loss.cls_weight",
    "cls": "weights of losses are loss.box_weight and loss.cls_weight",
    "copy_paste": _AUGMENTATIONS,
    "cutmix": _AUGMENTATIONS,
    "degrees": _AUGMENTATIONS,
    "dfl": "weights of losses are loss.box_weight and loss.cls_weight",
    "dropout": "there is no dropout; weight_decay=, ema= and aug.* are what limits overfitting",
    "erasing": _AUGMENTATIONS,
    "format": "'rfla export format=...' is for networks, 'rfla convert format=...' for data sets",
    "label_smoothing": "there is no label smoothing; 'rfla help loss' lists the losses",
    "launcher": "device=0,1 or torchrun starts several processes: see docs/multi_gpu.md",
    "load_from": "weights are given by model=FILE.safetensors; 'rfla import' converts an official "
    "MMDetection .pth to such a file",
    "mixup": _AUGMENTATIONS,
    "mode": "the verb comes first, without mode=: rfla train model=...",
    "nc": "the number of classes comes from the data",
    "no_sliced_prediction": "images are cut only where slice= is given",
    "no_standard_prediction": _SLICES_ALONE,
    "perform_standard_pred": _SLICES_ALONE,
    "persist": "there is no tracking",
    "perspective": _AUGMENTATIONS,
    "postprocess_match_threshold": "merging has no threshold to set (nms and nmm take "
    "0.5); its rule is merge= and merge_metric=",
    "rect": "images keep their aspect; nothing has to be set",
    "retina_masks": "rfla detects boxes alone",
    "samples_per_gpu": "batch= counts the images of a step on all devices together: "
    "samples_per_gpu times the number of GPUs",
    "shear": _AUGMENTATIONS,
    "show": "pictures are written, not shown: save=true",
    "simplify": "an exported graph is folded already; nothing has to be set",
    "stream": "stream=True belongs to Python: RFLA(...).predict(source, stream=True)",
    "task": "rfla detects boxes; there is no other task to choose",
    "tracker": "there is no tracking",
    "translate": _AUGMENTATIONS,
    "workspace": "TensorRT builds its engine from the ONNX file: see docs/export.md",
    "visualize": "'rfla inspect data=... model=...' draws what a model's assigner does",
}

_OTHER_NETWORK = re.compile(r"(yolo|rt-?detr|rf-?detr|fast_?sam|mobile_?sam|sam\d?[_.-])", re.I)
_PICKLED = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}
_PROGRAMS = {".pt2", ".torchscript"}
_EXPORTED = {".onnx", ".engine", ".tflite", ".mlpackage", ".mlmodel"}


def foreign_network(model: str) -> str:
    """Say what there is instead of a network of another tool; empty for any other name."""
    if not _OTHER_NETWORK.match(Path(model).name) or is_weights(model):
        return ""
    return (
        "a network of another tool, whose weights do not fit rfla's; train one of rfla's: "
        "rfla train model=fcos_p2 data=..., which writes runs/train/weights/best.safetensors"
    )


def foreign_model(model: str) -> str:
    """Say what there is instead of a model file of another tool; empty for any other."""
    name, suffix = Path(model).name, Path(model).suffix.lower()
    if foreign_network(model):
        return foreign_network(model)
    if suffix in _PICKLED:
        return (
            "pickled weights are not run. rfla's own are .safetensors; official MMDetection ones "
            f"come in by 'rfla import weights={name} model=... out=x.safetensors'; "
            "those of YOLO are another network: rfla train model=fcos_p2 data=..."
        )
    if suffix == ".onnx":
        return "an exported network, which predict and val run; here the weights are needed"
    if suffix in _PROGRAMS:
        return (
            "a program of torch, which may do anything when it is loaded: rfla writes such files "
            "and runs none; give the .safetensors it came from, or an .onnx of 'rfla export'"
        )
    if suffix in _EXPORTED:
        return "an exported network; rfla runs its own weights, and .onnx files of 'rfla export'"
    return ""
