"""The text of `keywords.py`: the keyword arguments of `RFLA.train`, `val`, `predict`, `export`.

It is generated from the schema, so that editors complete keys and type checkers know their types.
"""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from rfla.cfg.keys import section_class
from rfla.cfg.keys_used import keys_used
from rfla.cfg.schema import Config, Mode
from rfla.cfg.verbs import ExportOptions

HEAD = '''"""Keyword arguments of the methods of `RFLA`, for editors and type checkers.

Generated from rfla/cfg/schema.py and verbs.py by `python -m rfla.cfg.document`: do not edit.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict

Text = str | PathLike[str]
'''
# What is accepted besides the type of the field: other ways to write the same.
ALSO = {
    "device": "int | Sequence[int]",
    "cache": "bool",
    "classes": "int | str",
    "freeze": "str",
    "lr_steps": "int",
}
PATHS = ("data", "project", "predictions", "resume", "cfg", "out")
BY_POSITION = ("model", "source")  # what `RFLA` and `predict` take without a keyword
CLASSES: dict[Mode, tuple[str, tuple[str, ...]]] = {
    "train": ("TrainSettings", tuple(Config.model_fields)),
    "val": ("ValSettings", ("test",)),
    "predict": ("PredictSettings", ("test",)),
}


def keywords_py() -> str:
    """Return the text of `keywords.py`."""
    sections = {
        name: section
        for name, field in Config.model_fields.items()
        if (section := section_class(field.annotation)) is not None
    }
    blocks = [HEAD]
    for name, section in sections.items():
        fields = [
            (key, _words(key, field.annotation)) for key, field in section.model_fields.items()
        ]
        blocks.append(_typed_dict(_class_of(name), f"Section `{name}`.", fields))
    for verb, (title, of_verb) in CLASSES.items():
        names = [key.name for _, keys in keys_used(verb) for key in keys]
        flat = [
            (name, _words(name, Config.model_fields[name].annotation))
            for name in names
            if name not in BY_POSITION
        ]
        flat.append(("cfg", "Text"))
        # A bare word for a section is its name: assigner="baseline".
        nested = [
            (
                name,
                f"str | {_class_of(name)}" if "name" in section.model_fields else _class_of(name),
            )
            for name, section in sections.items()
            if name in of_verb
        ]
        about = f"Keys of `RFLA.{verb}`; a section may be given as a dict."
        blocks.append(_typed_dict(title, about, [*flat, *nested]))
    fields = [
        (key, _words(key, field.annotation))
        for key, field in ExportOptions.model_fields.items()
        if key not in BY_POSITION
    ]
    blocks.append(_typed_dict("ExportSettings", "Keys of `RFLA.export`.", fields))
    return "\n\n".join(block.rstrip("\n") + "\n" for block in blocks)


def _class_of(section: str) -> str:
    return f"{section.capitalize()}Section"


def _typed_dict(name: str, about: str, fields: Iterable[tuple[str, str]]) -> str:
    lines = [f"class {name}(TypedDict, total=False):", f'    """{about}"""', ""]
    return "\n".join([*lines, *(f"    {key}: {words}" for key, words in fields)])


def _words(key: str, annotation: Any) -> str:
    """The type of a keyword as Python writes it."""
    words = _type(annotation)
    if key in PATHS:
        words = words.replace("str", "Text")
    return f"{words} | {ALSO[key]}" if key in ALSO else words


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(args[0])
    if origin is Literal:
        return f"Literal[{', '.join(repr(option).replace(chr(39), chr(34)) for option in args)}]"
    if origin in (Union, types.UnionType):
        return " | ".join(_type(option) for option in args)
    if origin is tuple:
        return f"Sequence[{_type(args[0])}]"
    if annotation is type(None):
        return "None"
    assert not (isinstance(annotation, type) and issubclass(annotation, BaseModel))
    return str(annotation.__name__)
