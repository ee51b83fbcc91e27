"""Settings of one origin (command line, YAML file) in one flat form, and the check of them all."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rfla.cfg.foreign import ALIASES, NO_KEYS
from rfla.cfg.keys import Key, keys_of, section_class, sections_of, show, suggestions
from rfla.cfg.schema import Config
from rfla.errors import ConfigError, did_you_mean, nearest

Schema = TypeVar("Schema", bound=BaseModel)

WITHDRAWN = frozenset({"assigner.rescue", "assigner.posterior"})
"""Settings that were off by default and are gone: files in which they are off still open."""


@dataclass(frozen=True)
class Setting:
    """A value and where it came from: `""` for the command line, else `file:line`."""

    value: Any
    where: str = ""


Layer = dict[str, Setting]


def flatten(
    values: Mapping[Any, Any],
    schema: type[BaseModel],
    where: Callable[[str], str] = lambda key: "",
    prefix: str = "",
) -> Layer:
    """Bring nested and dotted settings into one flat form.

    A bare word on a section that has a `name` is that name: `assigner=rfla` is
    `assigner.name=rfla`.

    Args:
        values: settings, nested, dotted or both.
        schema: the keys that exist.
        where: gives the origin of a dotted key, for messages.
        prefix: of the section that the values are in, with its dot.

    Raises:
        ConfigError: an unknown key, or a plain value in the place of a section.
    """
    keys = keys_of(schema)
    layer: Layer = {}
    for word, value in values.items():
        name = f"{prefix}{word}"
        origin = where(name)
        if name in keys:
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            layer[name] = Setting(plain, origin)
        elif name in WITHDRAWN and not value:
            continue
        elif _section_at(name, schema) is None:
            raise ConfigError(_at(origin) + unknown_key(name, schema))
        elif isinstance(value, Mapping):
            layer |= flatten(value, schema, where, f"{name}.")
        elif isinstance(value, str) and f"{name}.name" in keys:
            layer[f"{name}.name"] = Setting(value, origin)
        elif value is not None:
            first = next(key for key in keys.values() if key.name.startswith(f"{name}."))
            example = f"{first.name}={show(first.default)}"
            raise ConfigError(
                f"{_at(origin)}{name}={show(value)}: {name} is a section; set its keys, "
                f"for example {example}"
            )
    return layer


def _section_at(name: str, schema: type[BaseModel]) -> type[BaseModel] | None:
    found: type[BaseModel] | None = schema
    for part in name.split("."):
        field = found.model_fields.get(part) if found is not None else None
        found = section_class(field.annotation) if field is not None else None
    return found


def unknown_key(name: str, schema: type[BaseModel]) -> str:
    """Say that there is no such key, and which ones were perhaps meant, each with its default."""
    if ALIASES.get(name.lower()) == "cfg" and "model" in schema.model_fields:
        return f"unknown key '{show(name)}'; did you mean cfg=FILE, a YAML file of settings?"
    if name.lower() in NO_KEYS and "model" in schema.model_fields:
        return f"unknown key '{show(name)}'; {NO_KEYS[name.lower()]}"
    keys, sections = keys_of(schema), sections_of(schema)
    closest = nearest(name, [*keys, *sections], 1)
    if closest and closest[0] in sections:
        first = next(key for key in keys.values() if key.section == closest[0])
        example = f"{first.name}={show(first.default)}"
        return f"unknown key '{show(name)}'; did you mean '{closest[0]}', as in {example}?"
    if name in keys_of(Config):
        return f"unknown key '{show(name)}' here; other verbs have it: rfla help {name}"
    near = suggestions(name, schema)
    if not near:
        flat = [f"{name}.*" if name in sections else name for name in schema.model_fields]
        known = ", ".join(flat) if len(flat) < 30 else "rfla cfg"
        return f"unknown key '{show(name)}'; all keys: {known}"
    options = " or ".join(f"{key.name} (default {show(key.default)})" for key in near)
    return f"unknown key '{show(name)}'; did you mean {options}?"


def validate(schema: type[Schema], layer: Layer) -> Schema:
    """Build `schema` from flat settings.

    Raises:
        ConfigError: the first value that is of the wrong type or out of range, in one line.
    """
    nested: dict[str, Any] = {}
    for name, setting in layer.items():
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = setting.value
    try:
        return schema.model_validate(nested)
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, layer)) from None
    except RecursionError:
        raise ConfigError("the settings are nested too deeply") from None


def _explain(error: ValidationError, schema: type[BaseModel], layer: Layer) -> str:
    """Put pydantic's first finding into one line: where, key=value, what is allowed, default."""
    first = error.errors(include_url=False, include_context=True)[0]
    parts = [str(part) for part in first["loc"]]
    keys = keys_of(schema)
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    name = next((name for name in names if name in keys), names[0] if names else "")
    key, setting = keys.get(name), layer.get(name)
    shown = f"{name}={show(setting.value) if setting else show(first['input'])}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if key is None and name in sections_of(schema):
        return message  # about keys that do not go together: it names them
    if key is not None and first["type"] != "value_error":
        message = f"must be {_article(key.kind)}{_limit(first, key)}{_nearest_option(key, setting)}"
    default = f" (default {show(key.default)})" if key is not None else ""
    return f"{_at(setting.where if setting else '')}{shown}: {message}{default}"


LIMITS = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
}  # pydantic's names, in words


def _limit(finding: Any, key: Key) -> str:
    """The limit that was passed, where `Key.kind` leaves it out: a large one, or of list items."""
    if finding["type"] == "too_short":
        return " that is not empty"
    context = finding.get("ctx", {})
    name = next((name for name in LIMITS if name in context), "")
    if not name:
        return ""
    limit = float(context[name])
    words = f"{LIMITS[name]} {limit:,.0f}" if limit >= 1e4 else f"{LIMITS[name]} {limit:g}"
    if key.kind.startswith("list"):
        return f", each {words}"
    return "" if f" {limit:g}" in key.kind else f", {words}"


def _nearest_option(key: Key, setting: Setting | None) -> str:
    """For a word that is not among the options of its key: the nearest that is."""
    if setting is None or not isinstance(setting.value, str):
        return ""
    return did_you_mean(setting.value.lower(), key.options)


def _article(kind: str) -> str:
    return kind if kind.startswith(("one of", "true", "text")) else f"a {kind}"


def _at(where: str) -> str:
    return f"{where}: " if where else ""
