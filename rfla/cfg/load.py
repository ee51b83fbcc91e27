"""From what the user gave to one checked configuration: layers of settings, later over earlier.

schema defaults < model YAML (or weights file) < pixels that another backbone wants < recommended
settings of the data YAML < recipe < `cfg=my.yaml` < command line
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfla.cfg.backbones import normalize_layer
from rfla.cfg.keys import keys_of, show
from rfla.cfg.layer_files import (
    data_layer,
    model_layer,
    model_names,
    settings_layer,
    trained_size_layer,
    yaml_layer,
)
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.recipes import RECIPES
from rfla.cfg.resume import resumed_layer
from rfla.cfg.schema import Config, Mode
from rfla.cfg.setting_layers import Layer, flatten, validate
from rfla.cfg.weights_header import is_exported, is_weights
from rfla.errors import ConfigError
from rfla.files import home_expanded

PREDICT_CONF = 0.25


def load_config(overrides: Mapping[str, Any], *, mode: Mode | None = None) -> Config:
    """Put all layers together and check the result.

    Args:
        overrides: what the user gave, dotted or nested: `{"model": "fcos_p2", "assigner.topk":
            [3, 1]}`. `cfg` names a YAML file of further settings.
        mode: the verb that will run. It decides the score threshold and what may not be missing;
            None leaves everything optional.

    Returns:
        The settings. `conf`, `iou` and `max_det` are resolved and equal to `test.conf`,
        `test.nms_iou` and `test.max_det`; `given` names the keys of `overrides` and of the `cfg`
        file. With `resume` (train, predict) the settings, and `given`, are those of the run under
        the few keys that may change; `resume` is its directory.

    Raises:
        ConfigError: an unknown key, a wrong value, an unreadable file, or a missing `model`, `data`
            or `source`.
        WeightsError: `model` is a weights file that is not one of ours.
    """
    own = flatten({key: value for key, value in overrides.items() if key != "cfg"}, Config)
    if mode in ("train", "predict") and _value(own, "resume"):
        return _resumed(own, overrides, mode)
    if mode == "train" and is_exported(_value(own, "model")):
        raise ConfigError(
            f"model={show(_value(own, 'model'))}: an exported network cannot be trained; "
            "give the weights that it came from"
        )
    file, names = _cfg_file(overrides.get("cfg"))
    if _value(file, "resume"):
        # The args.yaml of a resumed run names it; a run that repeats its settings is a new one.
        del file["resume"]
        names -= {"resume"}
    given = file | own
    # A typing mistake is reported at once, before the package of data sets is loaded.
    typed = validate(Config, given)
    recipe = _recipe_layer(typed) if mode in ("train", None) else {}
    model = model_layer(typed.model, _value(given, "assigner.name")) if typed.model else {}
    later = data_layer(typed.data, _value(model, "detector")) | recipe | given
    layer = model | normalize_layer(model, later) | later
    # Weights are validated and run at the size that they were trained at.
    if mode in ("val", "predict") and "imgsz" not in given:
        layer |= trained_size_layer(typed.model)
    config = _with_test_section(validate(Config, layer), frozenset(names | own.keys()), mode)
    if mode is not None:
        _require(config, mode)
    return config


def load_saved(path: Path | str) -> Config:
    """Read the `args.yaml` of a run. It is complete: no model YAML or data YAML is read again.

    Raises:
        ConfigError: an unreadable file, an unknown key or a wrong value, with file and line.
    """
    layer, names = settings_layer(path)
    return _with_test_section(validate(Config, layer), names, None)


def _resumed(own: Layer, overrides: Mapping[str, Any], mode: Mode) -> Config:
    if overrides.get("cfg") is not None:
        raise ConfigError("cfg and resume cannot be combined: a resumed run keeps its own settings")
    layer, names = resumed_layer(own, _value(own, "resume"), mode)
    return _with_test_section(validate(Config, layer), names, None)


def with_settings(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy with some keys changed (dotted), checked again.

    `given` stays what the user gave.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    changed = flatten(changes, Config)
    for flat, dotted in _TEST_KEYS.items():
        if dotted in changed and flat not in changed:
            changed[flat] = changed[dotted]
    layer = flatten(config.model_dump(), Config) | changed
    return _with_test_section(validate(Config, layer), config.given, None)


def model_config(
    model: str, assigner: str | None = None, settings: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Return the model sections of a zoo model or a model YAML, with some settings changed.

    Args:
        model: zoo name or path of a model YAML.
        assigner: `rfla`, `baseline` or `atss`; left out, the one that the YAML names.
        settings: keys of the model sections, dotted or nested: `{"assigner.distance": "wd"}`.

    Raises:
        ConfigError: no such model, an unknown key or a wrong value.
    """
    own = flatten({"assigner": assigner}, Config) | flatten(settings or {}, Config)
    of_model = keys_of(ModelConfig)
    for name in own.keys() - of_model.keys():
        raise ConfigError(f"{name} is a setting of a run, not of a model")
    # A model YAML also holds training keys, which are of no use here.
    of_yaml = yaml_layer(model, _value(own, "assigner.name"))
    layer = of_yaml | normalize_layer(of_yaml, own) | own
    return validate(ModelConfig, {name: layer[name] for name in layer if name in of_model})


def saved_model_config(sections: Mapping[str, Any], where: str) -> ModelConfig:
    """Check the model sections that a weights file stores.

    Args:
        sections: nested settings.
        where: names the file in messages.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    return validate(ModelConfig, flatten(sections, ModelConfig, lambda key: where))


def model_part(config: Config) -> ModelConfig:
    """Return the model sections alone: what a weights file stores, without the file it began as."""
    sections = config.model_dump(include=set(ModelConfig.model_fields))
    sections["backbone"]["weights"] = None
    return ModelConfig.model_validate(sections)


_TEST_KEYS = {"conf": "test.conf", "iou": "test.nms_iou", "max_det": "test.max_det"}


def _with_test_section(config: Config, given: frozenset[str], mode: Mode | None) -> Config:
    """Make the flat `conf`, `iou`, `max_det` and the `test` section say the same.

    The flat key wins where given.
    """
    test = config.test
    conf = config.conf
    if conf is None:
        conf = PREDICT_CONF if mode == "predict" and "test.conf" not in given else test.conf
    flat = {
        "conf": conf,
        "iou": test.nms_iou if config.iou is None else config.iou,
        "max_det": test.max_det if config.max_det is None else config.max_det,
    }
    changes = {dotted.partition(".")[2]: flat[name] for name, dotted in _TEST_KEYS.items()}
    # Who asks for scores down to `conf` gets them: the model's threshold must not cut before.
    if given & {"conf", "test.conf"} and "test.score_thr" not in given:
        changes["score_thr"] = min(test.score_thr, conf)
    copy = config.model_copy(update=flat | {"test": test.model_copy(update=changes)})
    copy._given = given
    return copy


def _value(layer: Layer, name: str) -> Any:
    return layer[name].value if name in layer else None


def _recipe_layer(typed: Config) -> Layer:
    recipe = RECIPES[typed.recipe]
    if recipe.random_weights and is_weights(typed.model):
        raise ConfigError(
            f"recipe={typed.recipe} starts from random weights, but {show(typed.model)} is a "
            "weights file; give a zoo name or a model YAML, or recipe=paper to fine-tune"
        )
    return flatten(recipe.settings, Config, lambda key: f"recipe={typed.recipe}")


def _cfg_file(path: Any) -> tuple[Layer, frozenset[str]]:
    if path is None:
        return {}, frozenset()
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigError(
            f"cfg={show(path)}: must be a YAML file of settings; 'rfla copy-cfg' writes one"
        )
    return settings_layer(home_expanded(path))


def _require(config: Config, mode: Mode) -> None:
    """Refuse to guess what only the user can know."""
    needs = {"train": ("model", "data"), "val": ("data", "model"), "predict": ("source", "model")}[
        mode
    ]
    advice = {
        "model": f"a zoo name ({', '.join(model_names())}), a model YAML or a .safetensors file",
        "data": "a data set (demo, aitod, ...), a data.yaml, or a directory with images/ and "
        "annotations/",
        "source": "an image or video, a directory, a pattern like 'dir/*.png', a .txt list of "
        "paths, an http(s) address, or the number of a camera",
    }
    example = {
        "train": "rfla train model=fcos_p2 data=demo",
        "val": "rfla val model=runs/train/weights/best.safetensors data=demo",
        "predict": "rfla predict model=runs/train/weights/best.safetensors source=images/",
    }[mode]
    for key in needs:
        if getattr(config, key) is None and not (key == "model" and config.predictions is not None):
            raise ConfigError(f"{key} is missing: {advice[key]}; for example: {example}")
