"""Official weights: MMDetection 2.x key names mapped to ours, checkpoints turned into our files.

Our modules carry the official names but for the few differences in `RENAMED`, so that the map is
this short table.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rfla.cfg import load_config, model_config
from rfla.cfg.layer_files import model_names
from rfla.cfg.weights_header import is_weights
from rfla.errors import ConfigError, WeightsError, counted, printable, require_short_name
from rfla.models.backbones.match import COUNTER
from rfla.models.checkpoint_file import read_checkpoint
from rfla.models.weights import check_finite, misfits, own_metadata, save_weights
from rfla.models.zoo import build_from_config, sketch

# Official pattern and our replacement, applied in turn.
RENAMED = (
    (r"^bbox_head\.center_prior\.", "center_prior."),
    (r"^bbox_head\.", "head."),  # one-stage head
    # of one stage; a cascade numbers them
    (r"^roi_head\.bbox_head\.(?=[a-z])", "roi_head.bbox_head.0."),
    # the pyramid's convolutions come without a wrapper
    (r"^(neck\.(?:lateral_convs|fpn_convs)\.\d+)\.conv\.", r"\1."),
    (r"^(head\.(?:cls_convs|reg_convs)\.\d+)\.gn\.", r"\1.norm."),
)
DISTANCES = {"kl": "kld", "exp_kl": "exp_kld", "kl_10": "kld_10", "wd": "wd"}  # theirs, ours

RETINA_CLASSES, RETINA_BOXES = "bbox_head.retina_cls.weight", "bbox_head.retina_reg.weight"
# The other layers whose outputs tell the number of classes, and how many of the outputs are not
# classes.
CLASS_LAYERS = {
    "bbox_head.conv_cls.weight": 0,
    "roi_head.bbox_head.fc_cls.weight": 1,
    "roi_head.bbox_head.0.fc_cls.weight": 1,
}


def our_key(official: str) -> str:
    """Name of an official state-dict entry in our detectors."""
    for pattern, replacement in RENAMED:
        official = re.sub(pattern, replacement, official)
    return official


def load_mmdet(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict with official keys; it has to fit in every key and shape.

    Args:
        net: a detector of `build_detector`.
        state_dict: official names, e.g. `bbox_head.conv_cls.weight`.

    Raises:
        WeightsError: names what is missing, unexpected and misshaped, in our names.
    """
    state = _ours(net, state_dict)
    problems = misfits(net, state)
    if problems:
        raise WeightsError(f"the official weights do not fit this model: {problems}")
    net.load_state_dict(state)


def import_checkpoint(
    weights: str | Path,
    model: str,
    out: str | Path,
    names: Sequence[str] | None = None,
    assigner: str | None = None,
) -> str:
    """Turn an MMDetection 2.x checkpoint into a weights file of this package.

    Args:
        weights: the `.pth` file; no code in it is run.
        model: zoo name or model YAML that it belongs to.
        out: the `.safetensors` file to write.
        names: class names in the order of the outputs; left out, those in the checkpoint.
        assigner: `rfla` or `baseline`; left out, what the configuration inside the checkpoint says.

    Returns:
        A line that says what was written.

    Raises:
        WeightsError: unreadable, hostile, or not the weights of this model (with a guess which
            model they are of).
        ConfigError: no such model, or `out` is not a `.safetensors` file.
    """
    if not is_weights(str(out)):
        raise ConfigError(f"out={out}: a .safetensors file is needed")
    if is_weights(model):
        raise ConfigError(f"model={model}: a zoo name or a model YAML is needed, not weights")
    checkpoint = read_checkpoint(weights)
    state, meta = _state_and_meta(checkpoint, weights)
    text = meta.get("config")
    text = text if isinstance(text, str) else ""
    settings = _settings_in(text)
    if assigner is None and text:
        assigner = "rfla" if "HieAssigner" in text else "baseline"
    classes = _class_names(state, meta, names, weights)
    model_config(model, assigner)  # what is wrong with these is not the checkpoint's
    try:
        config = model_config(model, assigner, settings)
    except ConfigError as error:
        raise WeightsError(f"{weights}: the configuration in it: {error}") from None
    empty = sketch(config, len(classes))
    problems = misfits(empty, _ours(empty, state))
    if problems:
        raise WeightsError(
            f"{weights}: not the weights of model={model}{_guess(state, len(classes))}: {problems}"
        )
    net = build_from_config(config, len(classes))
    load_mmdet(net, state)
    check_finite(net, str(weights))
    save_weights(
        out,
        net.state_dict(),
        own_metadata(net.config, classes, _image_size(text, load_config({"model": model}).imgsz))
        | {"metrics": {}, "source": Path(weights).name},
    )
    return (
        f"wrote {out}: {model}, {len(state)} tensors, "
        f"{counted(len(classes), 'class', 'classes')} ({', '.join(classes)})"
    )


def _state_and_meta(
    checkpoint: dict[str, Any], where: str | Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = checkpoint.get("state_dict", checkpoint)
    meta = checkpoint.get("meta", {})
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{where}: no state dict in it")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise WeightsError(f"{where}: its state dict holds more than tensors by name")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    # mmcv swaps the averaged weights in before it saves; what it calls average are the others
    averages = {"ema_" + key.replace(".", "_") for key in state}
    state = {key: value for key, value in state.items() if key not in averages}
    return state, meta if isinstance(meta, dict) else {}


def _ours(net: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in our names, with the counters that old checkpoints lack."""
    state = {our_key(key): value for key, value in state_dict.items()}
    for key, value in net.state_dict().items():
        if key.endswith(COUNTER):
            state.setdefault(key, value)
    return state


def _settings_in(config: str) -> dict[str, Any]:
    """Settings from the configuration text of a checkpoint: normalisation, strides, assigner.

    The text is searched, never evaluated.
    """
    settings: dict[str, Any] = {}
    number, gap = r"\s{0,50}\d{1,9}(?:\.\d{0,9})?\s{0,50}", r",\s{0,50}"
    numbers = rf"\[({number},{number},{number})\]"
    found = re.search(rf"mean={numbers}{gap}std={numbers}{gap}to_rgb=(True|False)", config)
    if found:
        settings["normalize.mean"] = [float(part) for part in found[1].split(",")]
        settings["normalize.std"] = [float(part) for part in found[2].split(",")]
        settings["normalize.channels"] = "rgb" if found[3] == "True" else "bgr"
    style = re.search(r"style='(pytorch|caffe)'", config)
    if style:
        settings["backbone.style"] = style[1]
    distance = re.search(r"assign_metric='(\w{1,20})'", config)
    if distance and distance[1] in DISTANCES:
        settings["assigner.distance"] = DISTANCES[distance[1]]
    topk = re.search(r"topk=\[(\d{1,3}), ?(\d{1,3})\]", config)
    if topk and int(topk[1]) and int(topk[2]):
        settings["assigner.topk"] = [int(topk[1]), int(topk[2])]
    return settings


def _image_size(config: str, usual: int) -> int:
    """Side of the square that images were fitted into; `usual` where it was none."""
    scale = re.search(r"img_scale=\((\d{2,5}), ?(\d{2,5})\)", config)
    side = int(scale[1]) if scale and scale[1] == scale[2] else usual
    return side if 32 <= side <= 16384 else usual


def _num_classes(state: Mapping[str, Tensor], where: str | Path) -> int:
    """From the shape of the classification layer.

    RetinaNet's has one output for each class and anchor of a cell.
    """
    outputs = {key: value.shape[0] for key, value in state.items() if value.dim() > 0}
    for key, others in CLASS_LAYERS.items():
        if key in outputs:
            return max(1, outputs[key] - others)
    if RETINA_CLASSES in outputs and outputs.get(RETINA_BOXES, 0) >= 4:
        return max(1, outputs[RETINA_CLASSES] // (outputs[RETINA_BOXES] // 4))
    raise WeightsError(f"{where}: no classification layer of a known detector in it")


def _class_names(
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    names: Sequence[str] | None,
    where: str | Path,
) -> list[str]:
    """The given names or those in the checkpoint, as many as the weights have classes."""
    count = _num_classes(state, where)
    wanted = counted(count, "class", "classes")
    of_mmdet3 = meta.get("dataset_meta")
    stated = of_mmdet3.get("classes") if isinstance(of_mmdet3, Mapping) else meta.get("CLASSES")
    classes = list(names) if names else stated
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise WeightsError(f"{where}: {wanted} without names; give them: names=a,b,...")
    if len(classes) != count:
        raise WeightsError(f"{where}: {len(classes)} names for {wanted}")
    for name in classes:
        require_short_name(name, str(where))
    if "" in classes:
        raise WeightsError(f"{where}: a class without a name; give them: names=a,b,...")
    if len(set(classes)) < len(classes):
        raise WeightsError(f"{where}: classes of one name: {', '.join(classes)}")
    return [printable(name, keep="") for name in classes]


def _guess(state: Mapping[str, Tensor], num_classes: int) -> str:
    """Which model of the zoo the weights fit, if any."""
    for name in model_names():
        net = sketch(model_config(name), num_classes)
        if not misfits(net, _ours(net, state)):
            return f" (they fit model={name})"
    return ""
