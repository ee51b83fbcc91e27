"""Read a small YAML file of somebody else: bounded, no aliases, line numbers for errors.

Aliases are refused because a few lines of them describe gigabytes; twice the same key because one
of the two is lost; tags because they call constructors. Everything is refused in one line with file
and line.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rfla.errors import ConfigError
from rfla.files import open_regular

MAX_BYTES = 512 * 1024
MAX_DEPTH = 20  # ours are 3 deep
MAX_NODES = 20_000  # a data YAML with 1,000 classes has 2,000


@dataclass(frozen=True)
class YamlFile:
    """The mapping of a YAML file, and the line of each of its keys.

    Attributes:
        path: the file.
        values: its top-level mapping, nested as written.
        lines: 1-based line of each dotted key (`"aug.fliplr"`).
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def where(self, dotted: str) -> str:
        """Return `file:line` of a key, for messages."""
        line = self.lines.get(dotted)
        return f"{self.path}:{line}" if line else str(self.path)


class _Refused(yaml.YAMLError):
    """A construct that is valid YAML but not read here."""

    def __init__(self, text: str, mark: Any):
        super().__init__(text)
        self.text = text
        self.problem_mark = mark


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases and deep nesting; `1e-3` is a number, as in YAML 1.2."""

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(
                f"aliases (*{event.anchor}) are not read; write the value out", event.start_mark
            )
        if getattr(event, "tag", None):
            raise _Refused("tags (!...) are not read", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _Refused("nested too deeply", event.start_mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} entries", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_EXPONENT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def is_yaml(path: Path) -> bool:
    """Whether a name is that of a YAML file, whether or not there is one."""
    return path.suffix.lower() in {".yaml", ".yml"}


def read_yaml(path: Path | str) -> YamlFile:
    """Read the mapping in `path`.

    Raises:
        ConfigError: no regular file, larger than `MAX_BYTES`, not UTF-8, not YAML, or not a
            mapping.
    """
    path = Path(path)
    loader: _Loader | None = None
    try:
        loader = _Loader(_read_text(path))
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        values = {} if node is None else _construct(loader, node, "", lines)
    except yaml.YAMLError as error:
        raise ConfigError(_one_line(path, error)) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    except (ValueError, OverflowError) as error:  # 31 February, a number of 5,000 digits
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold 'key: value' lines, not a {type(values).__name__}")
    return YamlFile(path, values, lines)


def _read_text(path: Path) -> str:
    with open_regular(path, ConfigError) as file:
        try:
            content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no settings file is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _construct(loader: _Loader, node: yaml.Node, prefix: str, lines: dict[str, int]) -> Any:
    """Build plain values from `node`; note the line of each key, refuse a key that comes twice."""
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [
            _construct(loader, item, f"{prefix}{i}.", lines) for i, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
        value = loader.construct_object(node, deep=True)
        # Python counts without end, but floats, messages and arrays do not.
        if isinstance(value, int) and abs(value) >= 2**63:
            raise _Refused("a whole number of more than 64 bits", node.start_mark)
        return value
    values: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Refused("a key must be a plain word", key_node.start_mark)
        key: Hashable = loader.construct_object(key_node)
        if key in values:
            raise _Refused(f"the key {key!r} comes twice", key_node.start_mark)
        lines[f"{prefix}{key}"] = key_node.start_mark.line + 1
        values[key] = _construct(loader, value_node, f"{prefix}{key}.", lines)
    return values


def _one_line(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    if isinstance(error, _Refused):
        return f"{where}: {error.text}"
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    if "'\\t'" in problem:
        problem = "a tab; YAML is indented with spaces"
    elif "python/" in problem or "could not determine a constructor" in problem:
        problem = "tags (!...) are not read"
    return f"{where}: not valid YAML: {problem}"
