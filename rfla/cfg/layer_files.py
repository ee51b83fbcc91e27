"""Layers of settings that come from files: settings files, model YAMLs, weights, data YAMLs.

A model YAML holds the model sections and, beside them, the training keys its authors used. Its
`assigners` section says what changes when another assigner is chosen: `assigners: {baseline: {loss:
{box: giou}}}`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfla.cfg.foreign import foreign_model, foreign_network
from rfla.cfg.keys import sections_of, show
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.schema import Config
from rfla.cfg.setting_layers import Layer, Setting, flatten
from rfla.cfg.weights_header import is_exported, is_weights, read_metadata
from rfla.cfg.yaml_file import YamlFile, is_yaml, read_yaml
from rfla.errors import ConfigError, RflaError, WeightsError, did_you_mean

if TYPE_CHECKING:
    from rfla.data.spec import DataSpec

MODELS = Path(__file__).parent / "models"
LARGEST_TRUSTED_SIZE = 2048  # px; a file of somebody else is not believed beyond

# What files of other people may set. Where a run writes, which device and how many processes it
# uses and what it reads stay with the user who starts it.
BY_DATA_YAML = (
    "imgsz",
    "multi_scale",
    "aug.*",
    "max_det",
    "test.max_det",
    "normalize.range",
    "normalize.range_16",
    "gsd",
    "assigner.topk",  # suits the number of boxes in an image
    "warmup_iters",  # suits the number of images
)
BY_MODEL_YAML = (
    *(f"{name}.*" for name in sections_of(ModelConfig)),
    "detector",
    "aug.*",
    "imgsz",
    "multi_scale",
    "epochs",
    "batch",
    "accumulate",
    "pretrained",
    "optimizer",
    "lr0",
    "lr_batch",
    "momentum",
    "weight_decay",
    "bias_lr_mult",
    "bias_decay",
    "norm_decay",
    "backbone_lr_mult",
    "lr_steps",
    "lr_gamma",
    "cos_lr",
    "lrf",
    "warmup",
    "warmup_iters",
    "warmup_ratio",
    "clip_grad",
    "ema",
    "conf",
    "iou",
    "max_det",
)
READ_FROM_DISK = ("backbone.weights",)


def _of_data(layer: Layer) -> Layer:
    """Return the settings of a data YAML if it may set them all; raises ConfigError."""
    return _only(layer, BY_DATA_YAML, f"a data YAML, which recommends {', '.join(BY_DATA_YAML)}")


def _of_model(layer: Layer) -> Layer:
    """Return the settings of a model YAML if it may set them all; raises ConfigError."""
    return _only(layer, BY_MODEL_YAML, "a model YAML, which says what a model is and how it learns")


def _only(layer: Layer, allowed: tuple[str, ...], kind: str) -> Layer:
    """Return the layer if all of its keys are allowed.

    Raises:
        ConfigError: names the first key that only the user may set.
    """
    for name, setting in layer.items():
        of_section = f"{name.partition('.')[0]}.*" in allowed and name not in READ_FROM_DISK
        if name not in allowed and not of_section:
            raise ConfigError(
                f"{setting.where}: {name}={show(setting.value)} cannot be set by {kind}; "
                "give it yourself if you want it"
            )
    return layer


def settings_layer(path: Path | str) -> tuple[Layer, frozenset[str]]:
    """Read a file of settings.

    Returns:
        Its settings, and which of them count as given by the user: all, or in an `args.yaml`
        those that it lists under `given`.

    Raises:
        ConfigError: an unreadable file or an unknown key, with file and line.
    """
    file = read_yaml(path)
    values = dict(file.values)
    if "cfg" in values:
        raise ConfigError(f"{file.where('cfg')}: a settings file cannot name another by cfg")
    listed = values.pop("given", None)
    layer = flatten(values, Config, file.where)
    if listed is None:
        return layer, frozenset(layer)
    if not isinstance(listed, list) or not all(
        isinstance(name, str) and name in layer for name in listed
    ):
        raise ConfigError(f"{file.where('given')}: given must list keys of this file")
    if "test.conf" not in layer and "conf" not in listed:
        # Before there was test.conf, a run wrote what is now test.score_thr as its conf too; taken
        # for today's conf it would cut the scores that the validation judges.
        layer = {name: setting for name, setting in layer.items() if name != "conf"}
    return layer, frozenset(listed)


def model_names() -> list[str]:
    """Names of the models that the package brings."""
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def model_layer(model: str, assigner: str | None = None) -> Layer:
    """Read what a model stands for: a zoo name, a model YAML or a weights file.

    Args:
        model: what the user gave as `model`.
        assigner: name of the assigner; left out, the one that the YAML names.

    Raises:
        ConfigError: no such model, or a wrong key in its YAML.
        WeightsError: a weights file that is not one of ours.
    """
    if is_file_of_ours(model):
        sections = _own_metadata(model).get("model")
        if not isinstance(sections, dict):
            raise WeightsError(f"{model}: its metadata does not describe a model")
        return flatten(sections, ModelConfig, lambda key: f"{model} (metadata)")
    return yaml_layer(model, assigner)


def is_file_of_ours(model: str) -> bool:
    """Whether `model=` names a file that says itself which model it holds."""
    return is_weights(model) or is_exported(model)


def _own_metadata(model: str) -> dict[str, Any]:
    """Read what a file says of itself; an export that is not ours may have the name of another."""
    try:
        return read_metadata(model)
    except WeightsError:
        foreign = foreign_network(model)
        if foreign:
            raise ConfigError(f"model={show(model)}: {foreign}") from None
        raise


def yaml_layer(model: str, assigner: str | None = None) -> Layer:
    """Read a zoo model or a model YAML for one assigner; see `model_layer`."""
    file = read_yaml(_model_path(model))
    values = dict(file.values)
    if not values:
        raise ConfigError(f"{file.path}: holds no settings; a model YAML has at least detector:")
    variants = values.pop("assigners", None) or {}
    layer = flatten(values, Config, file.where)
    named = layer.get("assigner.name", Setting("rfla")).value
    chosen = assigner or (named if isinstance(named, str) else "")
    return _of_model(layer | _variant(file, variants, chosen))


def _variant(file: YamlFile, variants: Any, chosen: str) -> Layer:
    """What the `assigners` section of a model YAML changes for the chosen assigner."""
    changes = variants.get(chosen, {}) if isinstance(variants, Mapping) else None
    if not isinstance(changes, Mapping):
        raise ConfigError(
            f"{file.where('assigners')}: assigners maps an assigner to settings, "
            "for example assigners: {baseline: {loss: {box: giou}}}"
        )
    layer = flatten(changes, Config, lambda key: file.where(f"assigners.{chosen}.{key}"))
    return layer | {"assigner.name": Setting(chosen, file.where("assigner"))}


def _model_path(name: str) -> Path:
    if name in model_names():
        return MODELS / f"{name}.yaml"
    path = Path(name)
    if is_yaml(path) and os.path.lexists(path):
        return path  # what is no file is refused where it is read
    foreign = foreign_model(name)
    if foreign:
        raise ConfigError(f"model={show(name)}: {foreign}")
    weights = path / "weights" / "best.safetensors"
    near = did_you_mean(name, model_names())
    hint = f"; did you mean {weights}?" if os.path.isfile(weights) else near
    raise ConfigError(
        f"no model '{show(name)}'; a model is one of {', '.join(model_names())}, a .yaml file or a "
        f".safetensors file{hint}"
    )


def trained_size_layer(model: Any) -> Layer:
    """Return the `imgsz` that a weights file was trained at; empty for any other model.

    Raises:
        ConfigError: it is so large that a user has to ask for it: a stranger's file could fill
            the memory.
    """
    if not isinstance(model, str) or not is_file_of_ours(model):
        return {}
    size = read_metadata(model).get("imgsz")
    if not isinstance(size, int):
        return {}
    if size > LARGEST_TRUSTED_SIZE:
        raise ConfigError(
            f"{model}: claims imgsz={size}; sizes above {LARGEST_TRUSTED_SIZE} px are not taken "
            "from a weights file: set imgsz= yourself"
        )
    return {"imgsz": Setting(size, f"{model} (metadata)")}


def data_spec(data: str) -> "DataSpec":
    """Find a data set by name, YAML or directory; nothing of it is opened.

    Raises:
        DataError: there is none.
    """
    from rfla.data.spec import load_data_spec  # here, because rfla.data is built on this package

    return load_data_spec(data)


def data_layer(data: Any, detector: Any) -> Layer:
    """Return what a data YAML recommends, for all models and for one detector.

    A data set that is not found is reported when it is opened, not here.
    """
    if not isinstance(data, str) or not data:
        return {}
    try:
        spec = data_spec(data)
    except RflaError:
        return {}
    layer = _of_data(flatten(spec.settings, Config, lambda key: f"{spec.source} (settings)"))
    where = f"{spec.source} (model_settings)"
    for name, settings in spec.model_settings.items():
        own = _of_data(flatten(settings, Config, lambda key: where))
        layer |= own if name == detector else {}
    return layer
