"""A data YAML: where the splits of a data set are, and what its classes are called.

- COCO JSON: `train: {images: DIR, annotations: FILE.json}`; short: `train: FILE.json` (images in
  `images:` or beside it).
- Ultralytics YOLO: `train: DIR | list.txt | [several]`, labels found by `/images/` -> `/labels/`,
  rows `cls xc yc w h`.
- any format of `rfla convert`: `format: visdrone` beside `path: DIR`, or `data: {format, path}`.

A relative `path` is looked for beside the YAML, in each directory of `RFLA_DATASETS`, in the user's
cache and in `./datasets`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rfla.cfg.yaml_file import read_yaml
from rfla.data.record import Part
from rfla.errors import ConfigError, DataError, did_you_mean, printable, require_short_name, shorten
from rfla.files import home_expanded

LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes, letters: what file systems take
MOST_CLASSES = 10_000  # the weights of a head grow with the classes
INFO_KEYS = frozenset(
    {
        "description",
        "licence",
        "license",
        "homepage",
        "citation",
        "obtain",
        "command",
        "expects",
        "max_det",
        "download",
    }
)
# of Ultralytics' YAMLs for other tasks, and of programs that write them
FOREIGN_KEYS = frozenset(
    {
        "author",
        "colors",
        "date",
        "flip_idx",
        "kpt_names",
        "kpt_shape",
        "roboflow",
        "task",
        "version",
    }
)
KEYS_OF_DATA = frozenset(
    {
        "path",
        "names",
        "nc",
        "channels",
        "data",
        "format",
        "images",
        "splits",
        "protocol",
        "sizes",
        "settings",
        "model_settings",
    }
)
KNOWN_KEYS = KEYS_OF_DATA | INFO_KEYS | FOREIGN_KEYS
# A split may have any other name; some tools note the last three in their YAMLs.
_ALSO_SPLITS = frozenset({"val", "test", "name", "source", "classes"})
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
BUILT_IN = Path(str(resources.files("rfla"))) / "cfg" / "datasets"


@dataclass(frozen=True)
class SplitSource:
    """Where one split is, and in which annotation format.

    Attributes:
        format: A key of `rfla.data.formats.FORMATS`.
        part: Its files and image directories.
    """

    format: str
    part: Part

    @property
    def images(self) -> tuple[Path, ...]:
        """Directories or `.txt` lists of images."""
        return self.part.images

    @property
    def annotations(self) -> Path | None:
        """The first annotation file; None where labels are beside the images (YOLO)."""
        return self.part.annotations[0] if self.part.annotations else None


@dataclass(frozen=True)
class DataYaml:
    """A data YAML as it is written.

    Attributes:
        path: The file.
        content: Its keys and values.
        root: Directory that relative paths start from.
        names: Class names in label order, the text as it is written; empty where there are none.
        splits: Sources by split name; empty where `format` finds them itself.
        format: The annotation format that is named for the whole of `root`, or "".
    """

    path: Path
    content: Mapping[str, Any]
    root: Path
    names: tuple[str, ...]
    splits: Mapping[str, SplitSource]
    format: str = ""


def dataset_directories() -> list[Path]:
    """Where data sets are looked for: `RFLA_DATASETS`, the user's cache, `./datasets`."""
    given = [
        home_expanded(part)
        for part in os.environ.get("RFLA_DATASETS", "").split(os.pathsep)
        if part
    ]
    return [*given, cache_directory() / "datasets", Path("datasets").absolute()]


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/rfla` or `~/.cache/rfla`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return home_expanded(base) / "rfla"


def read_data_yaml(path: Path) -> DataYaml:
    """Read a data YAML.

    Raises:
        DataError: A YAML that does not describe a data set.
    """
    try:
        content: dict[str, Any] = {str(k): value for k, value in read_yaml(path).values.items()}
    except ConfigError as error:
        raise DataError(str(error)) from None
    where, format = content.get("path"), content.get("format")
    inner = content.get("data")
    if isinstance(inner, dict):
        where, format = inner.get("path", where), inner.get("format", format)
    root = _root(path, where)
    splits = {
        name: _split(path, root, name, value, content)
        for name, value in _split_entries(path, content).items()
    }
    whole = isinstance(format, str) and not splits
    return DataYaml(
        path, content, root, _names(path, content), splits, str(format) if whole else ""
    )


def _root(path: Path, given: Any) -> Path:
    """Directory that the splits are relative to: the first that exists, else the most likely."""
    if given is None:
        return path.parent
    root = expanded(str(given).replace("\\", "/"))
    if root.is_absolute():
        return root
    built_in = path.parent == BUILT_IN
    candidates = [] if built_in else [path.parent / root]
    candidates += [base / root for base in dataset_directories()]
    candidates += [] if built_in else [Path.cwd() / root]
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])


def _names(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    stated = count if isinstance(count, int) and not isinstance(count, bool) else None
    if stated is not None and not 0 <= stated <= MOST_CLASSES:
        raise DataError(
            f"{path}: nc must be a number of classes up to {MOST_CLASSES}, not {stated}"
        )
    if names is None:
        return tuple(f"class{index}" for index in range(stated or 0))
    written = _as_written(path)
    if isinstance(names, dict) and isinstance(written, dict):
        written = _in_order(path, written)
    if not isinstance(written, list) or not written:
        raise DataError(f"{path}: names must be a list of class names, not {names!r:.80}")
    check_names(path, written)
    if stated is not None and stated != len(written):
        raise DataError(f"{path}: nc is {stated} but {len(written)} names are given")
    return tuple(printable(name, keep="") for name in written)


def _in_order(path: Path, names: Mapping[str, str]) -> list[str]:
    """Return the names of `{0: first, 1: second, ...}`."""
    try:
        numbered = {int(key): name for key, name in names.items()}
    except ValueError:
        raise DataError(f"{path}: names must be a list or {{0: first, 1: second, ...}}") from None
    if sorted(numbered) != list(range(len(numbered))):
        raise DataError(
            f"{path}: names must be numbered 0 to {len(numbered) - 1} without gaps, "
            f"not {shorten(sorted(numbered))}"
        )
    return [numbered[index] for index in range(len(numbered))]


def check_names(path: Path, names: list[str]) -> None:
    """Refuse names that cannot be told apart or shown."""
    if len(names) > MOST_CLASSES:
        raise DataError(f"{path}: {len(names):,} class names; at most {MOST_CLASSES}")
    for name in names:
        require_short_name(name, str(path))
    if "" in names:
        raise DataError(f"{path}: class {names.index('')} has an empty name")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: class '{twice}' is named twice")


def _as_written(path: Path) -> list[str] | dict[str, str] | None:
    """Return the class names as the text that stands in the file.

    YAML reads `no` as false, `010` as 8 and `12:30` as 750; a name is what is written.
    """
    document = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    assert isinstance(document, yaml.MappingNode)
    node = next(value for key, value in document.value if key.value == "names")
    if isinstance(node, yaml.SequenceNode):
        entries = node.value
        return (
            [entry.value for entry in entries]
            if all(isinstance(entry, yaml.ScalarNode) for entry in entries)
            else None
        )
    if isinstance(node, yaml.MappingNode):
        pairs = node.value
        return (
            {key.value: value.value for key, value in pairs}
            if all(isinstance(value, yaml.ScalarNode) for _, value in pairs)
            else None
        )
    return None


_OTHER_WORDS = {"validation": "val", "valid": "val"}
_USUAL_SPLITS = frozenset({"train", "val", "test", "trainval", "minival"})


def _refuse_stray(path: Path, key: str) -> None:
    """Refuse a key that is no split: one of a run, or a misspelt one."""
    from rfla.cfg.schema import Config  # not before: it takes longer to load than all of this

    of_a_run = Config.model_fields.keys() | {"generator"}
    if key in of_a_run - KNOWN_KEYS - _ALSO_SPLITS:
        raise DataError(
            f"{path}: {key} cannot be set by a data YAML; it belongs to a run: give it yourself"
        )
    hint = did_you_mean(key, KNOWN_KEYS)
    if key not in _USUAL_SPLITS and hint:
        raise DataError(f"{path}: unknown key '{key}'{hint}")


def _split_entries(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The splits: unknown keys that hold a place to look in, and those under `splits:`."""
    entries: dict[str, Any] = {}
    for key, value in content.items():
        if key in KNOWN_KEYS or value is None:
            continue
        word = _OTHER_WORDS.get(key, key)
        key = key if word in content else word
        if key.endswith("_json"):
            name = key.removesuffix("_json")
            images = content.get(name)
            entries[name] = {"annotations": value, **({"images": images} if images else {})}
            continue
        if key in entries:
            continue
        _refuse_stray(path, key)
        if isinstance(value, str | list) or (isinstance(value, dict) and "annotations" in value):
            entries[key] = value
        elif key in _USUAL_SPLITS:
            raise DataError(
                f"{path}: {key} must be a directory, a list of them, or "
                f"{{images: DIR, annotations: FILE.json}}, not {shorten(value)}"
            )
    extra = content.get("splits") or {}
    if not isinstance(extra, dict):
        raise DataError(f"{path}: splits must be a mapping of split names, not {extra!r}")
    return entries | {str(key): value for key, value in extra.items()}


def _split(
    path: Path, root: Path, name: str, value: Any, content: Mapping[str, Any]
) -> SplitSource:
    if isinstance(value, str) and value.lower().endswith(".json"):
        value = {"annotations": value}
    if isinstance(value, dict):
        annotations = value.get("annotations")
        if not isinstance(annotations, str):
            raise DataError(f"{path}: split '{name}' needs `annotations: FILE.json`")
        images = value.get("images", content.get("images"))
        folder = (
            written_path(root, str(images))
            if images
            else first_dir(root / "images" / name, root / "images", root)
        )
        return SplitSource("coco", Part((written_path(root, annotations),), (folder,), root=root))
    places = value if isinstance(value, list) else [value]
    if not places or not all(isinstance(place, str) for place in places):
        raise DataError(
            f"{path}: split '{name}' must be a directory, a .txt list or a list of those, "
            f"not {value!r:.80}"
        )
    images = tuple(written_path(root, place) for place in places)
    return SplitSource("yolo", Part((), images, root=root))


def written_path(root: Path, text: str) -> Path:
    r"""Return the place that a data YAML means, the first of these that exists, else as written.

    As written; with `/` for the `\` of Windows; and, as Ultralytics exports write
    `../train/images` for a directory beside the YAML, without the `../`.
    """
    path = root / expanded(text)
    plain = text.replace("\\", "/")
    for candidate in (path, root / plain, root / plain.removeprefix("../")):
        if exists(candidate):
            return candidate
    return path


def expanded(text: str) -> Path:
    """Return a path with `~` replaced.

    Raises:
        DataError: No file can have that name.
    """
    try:
        longest = max((len(os.fsencode(part)) for part in Path(text).parts), default=0)
        if longest <= LONGEST_NAME and len(text) <= LONGEST_PATH and "\0" not in text:
            return home_expanded(text)
    except UnicodeEncodeError:
        pass
    raise DataError(f"{text!r:.80}: no file can have this name")


def exists(path: Path) -> bool:
    """Tell whether a path exists; a name that no file system takes does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def first_dir(*candidates: Path) -> Path:
    """Return the first candidate that is a directory, else the last."""
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[-1])
