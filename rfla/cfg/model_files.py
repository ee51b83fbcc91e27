"""Read a model YAML, and turn nested settings into a `ModelConfig`.

A model YAML holds the model sections and, beside them, the training keys its authors used. Its
`assigners` section says what changes when another assigner is chosen: `assigners: {baseline: {loss:
{box: giou}}}`.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rfla.cfg.base import Section
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.yaml_file import read_yaml
from rfla.errors import ConfigError, did_you_mean

MODELS = Path(__file__).parent / "models"
Settings = dict[str, Any]


def model_names() -> list[str]:
    """Names of the models that the package brings."""
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def model_path(name: str) -> Path:
    """Path of the YAML of a zoo name, or of a YAML file that somebody wrote.

    Raises:
        ConfigError: there is neither.
    """
    if name in model_names():
        return MODELS / f"{name}.yaml"
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    raise ConfigError(
        f"no model '{name}'; a model is one of {', '.join(model_names())}, a .yaml file or a .safetensors file"
        f"{did_you_mean(name, model_names())}"
    )


def read_model_yaml(name: str, assigner: str | None = None) -> Settings:
    """Nested settings of a model YAML: model sections and training keys, for the chosen assigner.

    Args:
        name: zoo name or path of a YAML file.
        assigner: `rfla`, `baseline` or `atss`; left out, the one that the file names.

    Raises:
        ConfigError: no such file, or one that `read_yaml` refuses.
    """
    path = model_path(name)
    raw = read_yaml(path).values
    if not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path}: holds no `key: value` lines")
    return _for_assigner(raw, assigner, path)


def _for_assigner(raw: Settings, assigner: str | None, path: Path) -> Settings:
    variants = raw.pop("assigners", None) or {}
    section = raw.get("assigner", {})
    chosen = assigner or (section.get("name", "rfla") if isinstance(section, dict) else section)
    if not isinstance(variants, dict) or not isinstance(variants.get(chosen, {}), dict):
        raise ConfigError(
            f"{path}: `assigners` maps an assigner to settings, e.g. assigners: {{baseline: {{...}}}}"
        )
    settings = merge(raw, variants.get(chosen, {}))
    return merge(settings, {"assigner": {"name": chosen}})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`base` with the values of `over` laid on top, section by section.

    A bare word on a section is its name.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, Mapping):
            old = {"name": old}
        elif isinstance(value, str) and isinstance(old, Mapping) and "name" in old:
            value = {"name": value}
        merged[key] = (
            merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def nest(dotted: Mapping[str, Any]) -> Settings:
    """`{"assigner.topk": [3, 1]}` to `{"assigner": {"topk": [3, 1]}}`."""
    nested: Settings = {}
    for key, value in dotted.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def build_model_config(settings: Mapping[str, Any], where: str = "model settings") -> ModelConfig:
    """Check nested model settings.

    Args:
        settings: sections of `ModelConfig`; other keys are an error.
        where: named in the error, e.g. the file.

    Raises:
        ConfigError: with the first thing that is wrong, in one line.
    """
    fields = ModelConfig.model_fields
    worded = {
        key: {"name": value}
        if isinstance(value, str) and key in {"backbone", "assigner"}
        else value
        for key, value in settings.items()
    }
    try:
        return ModelConfig.model_validate(worded)
    except ValidationError as error:
        first = error.errors()[0]
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        raise ConfigError(
            f"{where}: {key[:80]}={reprlib.repr(first['input'])[:60]}: {first['msg'][:200]}"
        )
    section, _, leaf = key.rpartition(".")
    options = list(fields)
    if section in fields:
        kind = fields[section].annotation
        options = (
            list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Section) else []
        )
    raise ConfigError(
        f"{where}: no key '{key[:80]}'{did_you_mean(leaf, options)}; keys: {', '.join(options)}"
    )


def model_config(
    name: str, assigner: str | None = None, overrides: Mapping[str, Any] | None = None
) -> ModelConfig:
    """The model sections of a zoo name or YAML, with dotted overrides (`{"assigner.distance": "wd"}`) on top."""
    given = nest(overrides or {})
    section = given.get("assigner", {})
    worded = section.get("name") if isinstance(section, dict) else section
    chosen = worded or assigner
    settings = read_model_yaml(name, chosen)
    sections = {key: value for key, value in settings.items() if key in ModelConfig.model_fields}
    return build_model_config(merge(sections, given), where=name)
