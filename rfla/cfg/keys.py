"""The keys: names, types in words, defaults, and the nearest key to a wrong one."""

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rfla.cfg.base import OneOf
from rfla.cfg.foreign import ALIASES
from rfla.errors import nearest


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        name: Dotted name, as typed.
        field: Its type, default, limits and description.
    """

    name: str
    field: FieldInfo

    @property
    def annotation(self) -> Any:
        """Python type."""
        return self.field.annotation

    @property
    def default(self) -> Any:
        """Value when nobody says anything."""
        return None if self.field.default is PydanticUndefined else self.field.default

    @property
    def description(self) -> str:
        """One sentence."""
        return self.field.description or ""

    @property
    def kind(self) -> str:
        """Type and range in words, for messages and docs."""
        return _kind(self.field)

    @property
    def options(self) -> list[str]:
        """The words that the key chooses from; empty where any value of the type will do."""
        return [str(option) for option in _options(self.annotation, self.field.metadata)]

    @property
    def section(self) -> str:
        """Name of the section that the key is in; empty for the flat keys."""
        return self.name.rpartition(".")[0]


@cache
def keys_of(schema: type[BaseModel]) -> dict[str, Key]:
    """Return every key of a schema by its dotted name, in the order of the class."""
    return {key.name: key for key in _walk(schema, "")}


@cache
def sections_of(schema: type[BaseModel]) -> dict[str, str]:
    """Return the description of each section of a schema by its name."""
    return {
        name: field.description or ""
        for name, field in schema.model_fields.items()
        if section_class(field.annotation) is not None
    }


def section_class(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation (`X` or `X | None`) stands for; None for a value."""
    union = get_origin(annotation) in (Union, types.UnionType)
    for option in get_args(annotation) if union else (annotation,):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _walk(schema: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in schema.model_fields.items():
        inner = section_class(field.annotation)
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            yield Key(prefix + name, field)


def _kind(field: FieldInfo) -> str:
    words = type_words(field.annotation, field.metadata)
    limits = {
        name: getattr(constraint, name)
        for constraint in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(constraint, name)
    }
    span = _range_words(limits)
    head, bar, rest = words.partition(" or ")
    return f"{head} {span}{bar}{rest}" if span else words


def _range_words(limits: Mapping[str, Any]) -> str:
    low = ""
    if "ge" in limits:
        low = f"from {limits['ge']:g}"
    elif "gt" in limits:
        low = f"above {limits['gt']:g}"
    # A limit of 10,000 or more is there against absurd values: it is named where it is passed.
    high = ""
    if "lt" in limits:
        high = f"to below {limits['lt']:g}"
    elif "le" in limits and limits["le"] < 1e4:
        high = f"to {limits['le']:g}"
    if not high:
        return low.replace("from", "of at least")
    return f"{low} {high}" if low else high.removeprefix("to ")


def _options(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[Any]:
    """Yield the words of a `Literal` or a `OneOf`, in unions too."""
    for constraint in metadata:
        if isinstance(constraint, OneOf):
            yield from constraint.options
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from args
    elif origin is Annotated:
        yield from _options(args[0], args[1:])
    elif origin in (Union, types.UnionType):
        for option in args:
            yield from _options(option)


def type_words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Say a type in words: `whole number`, `true/false`, `one of sgd, adamw`, `list of text`."""
    origin, args = get_origin(annotation), get_args(annotation)
    choice = next((each for each in metadata if isinstance(each, OneOf)), None)
    if choice is not None:
        return choice.words or f"one of {', '.join(choice.options)}"
    if origin is Annotated:
        return type_words(args[0], args[1:])
    if origin is Literal:
        return f"one of {', '.join(str(option) for option in args)}"
    if origin in (Union, types.UnionType):
        none_last = sorted(args, key=lambda option: option is type(None))
        return " or ".join(type_words(option) for option in none_last)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"list of {count}{_plural(type_words(args[0]))}"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


_PLAIN = {
    bool: "true/false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "none",
}


def _plural(words: str) -> str:
    """`whole number` to `whole numbers`; what is plural already, or has none, stays."""
    first, of, rest = words.partition(" of ")
    plurals = {"list": "lists", "whole number": "whole numbers", "number": "numbers"}
    first = plurals.get(first, first)
    return first.replace("number or", "numbers or") + of + rest


def value_at(values: Any, key: str) -> Any:
    """Return the value of a dotted key in nested dicts."""
    for part in key.split("."):
        values = values[part]
    return values


def show(value: Any, limit: int = 60, depth: int = 3) -> str:
    """Write a value as one would type it, in one line.

    Args:
        value: anything.
        limit: longest text in characters; a longer one ends with `...`.
        depth: levels of brackets that are written out.
    """
    if value is None or isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, list | tuple):
        parts = ",".join(show(part, limit, depth - 1) for part in value[:50]) if depth else "..."
        text = f"[{parts}]"
    elif isinstance(value, str) and value.isprintable() and value:
        text = value
    else:
        text = _repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python does not write out a number of more than 4,300 digits
        return "a number of thousands of digits"


SUGGESTIONS = 3  # keys that a message names


def suggestions(word: str, schema: type[BaseModel]) -> list[Key]:
    """Return the keys that `word` may have meant, `SUGGESTIONS` at most.

    Another tool's name comes first, then keys with the same last part, then similar spelling.
    """
    keys = keys_of(schema)
    plain = word.lower().replace("-", "_")
    names: list[str] = []
    alias = ALIASES.get(plain)
    if alias in keys:
        names.append(str(alias))
    last = plain.rpartition(".")[2]
    names += [name for name in keys if name.rpartition(".")[2] == last]
    if not names:
        names += nearest(plain, [*keys, *ALIASES], SUGGESTIONS)
        names = [name if name in keys else ALIASES[name] for name in names]
    if not names:
        by_last = _by_last_part(keys)
        names += [name for part in nearest(last, by_last, SUGGESTIONS) for name in by_last[part]]
    return [keys[name] for name in dict.fromkeys(names) if name in keys][:SUGGESTIONS]


def _by_last_part(names: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(name.rpartition(".")[2], []).append(name)
    return grouped


def example_of(key: Key) -> str:
    """Return `key=value` as an example of how it is typed."""
    if isinstance(key.default, bool):
        return f"{key.name}=true"
    return f"{key.name}={'...' if key.default in (None, '', ()) else show(key.default)}"
