"""The parent of every section of the configuration: frozen, typed, strict about what it accepts."""

import re
import types
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from rfla.files import home_expanded

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a surrogate pair


@dataclass(frozen=True)
class OneOf:
    """Limits a text field to names that can be added to: `Annotated[str, OneOf(DETECTORS)]`.

    Unlike a `Literal`, the list is looked at when a value is checked, so that a program that brings
    its own detector, backbone or distance appends the name and is understood.

    Attributes:
        options: The names: a list, or a dict that has them as keys.
        words: What to call them where they are too many to be listed; empty: they are listed.
        also: Regular expression of further names; empty: there are none.
    """

    options: Collection[str]
    words: str = ""
    also: str = ""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        if value not in self.options and not (self.also and re.fullmatch(self.also, value)):
            raise PydanticCustomError("unknown_name", "not one of the names")
        return value


def accepts(annotation: Any, kind: type) -> bool:
    """Tell whether a field takes values of `kind`, looking into unions and `Annotated`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return any(accepts(option, kind) for option in get_args(annotation))
    return annotation is kind


def split_commas(value: Any) -> Any:
    """Turn `ship,car` and a single value into a list: `classes=ship` means `classes=[ship]`."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Section(BaseModel):
    """A group of settings. Unknown keys, NaN, and booleans in the place of numbers are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic reads True as 1; nobody who types `epochs=true` means one epoch."""
        field = cls.model_fields[str(info.field_name)]
        takes_number = accepts(field.annotation, int) or accepts(field.annotation, float)
        if isinstance(value, bool) and takes_number and not accepts(field.annotation, bool):
            raise ValueError("a number is needed here, not true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_half_characters(cls, value: Any) -> Any:
        """No settings file could hold them; they come from YAML escapes and broken file names."""
        parts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, str) and _HALF_CHARACTER.search(part) for part in parts):
            raise ValueError("must be text that UTF-8 can hold")
        return value


def _home(value: str) -> str:
    """Replace a leading `~`, which a shell leaves in `key=~/x`."""
    return str(home_expanded(value)) if value.startswith("~") else value


def _not_layer_numbers(value: Any) -> Any:
    """Elsewhere `freeze=10` freezes the first ten layers."""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, int | float) and not isinstance(part, bool) for part in parts):
        raise ValueError(
            "must be names, for example [backbone] or [backbone,neck]; "
            "backbone.frozen_stages freezes the first stages of the backbone"
        )
    return value


def _lowest_first(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError("the lowest value comes first, for example range=[0,4095]")
    return limits


PathText = Annotated[str, AfterValidator(_home)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
FrozenNames = Annotated[Names, BeforeValidator(_not_layer_numbers)]
NamesOrNumbers = Annotated[tuple[int | str, ...], BeforeValidator(split_commas)]
Integers = Annotated[tuple[int, ...], BeforeValidator(split_commas)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(split_commas)]
ValueRange = Annotated[tuple[float, float], AfterValidator(_lowest_first)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=100_000)]
