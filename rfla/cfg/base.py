"""The parent of every section of the configuration: frozen, typed, and strict about what it accepts."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator


def accepts(annotation: Any, kind: type) -> bool:
    """Tell whether `kind` is one of the types that a field's annotation names (unions and Annotated looked into)."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return any(accepts(option, kind) for option in get_args(annotation))
    return annotation is kind


def split_commas(value: Any) -> Any:
    """Turn `ship,car` and a single value into a list, so that `classes=ship` means `classes=[ship]`."""
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


Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
NamesOrNumbers = Annotated[tuple[int | str, ...], BeforeValidator(split_commas)]
Integers = Annotated[tuple[int, ...], BeforeValidator(split_commas)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(split_commas)]
