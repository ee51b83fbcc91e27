"""What a data set is made of: a data YAML or a directory -> `DataSpec`.

Three forms, all by bare name or by path:

- COCO JSON: `train: {images: DIR, annotations: FILE.json}`; short: `train: FILE.json` (images in
  `images:` or beside
it).
- Ultralytics YOLO: `train: DIR | list.txt | [several]`, labels found by `/images/` -> `/labels/`,
  rows `cls xc yc w h`.
- no YAML: a directory with `images/` and `annotations/{split}.json`.

A relative `path` is looked for beside the YAML, in each directory of `RFLA_DATASETS`, in the user's
cache and in `./datasets`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from rfla.cfg.yaml_file import read_yaml
from rfla.data.obtain import missing_dataset_message
from rfla.errors import ConfigError, DataError, did_you_mean

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
KNOWN_KEYS = INFO_KEYS | {
    *(
        "path",
        "names",
        "nc",
        "channels",
        "format",
        "images",
        "splits",
        "protocol",
        "sizes",
        "settings",
        "model_settings",
    )
}
_BUILT_IN = Path(str(resources.files("rfla"))) / "cfg" / "datasets"
DEMO_YAML = _BUILT_IN / "demo.yaml"  # the one data set that `rfla.tools.demo` makes


@dataclass(frozen=True)
class SplitSource:
    """Where one split is: one COCO file with its image directory, or YOLO image directories and lists.

    Attributes:
        images: Directories or `.txt` lists of images; exactly one directory for COCO.
        annotations: The COCO JSON file; None means YOLO labels beside the images.
    """

    images: tuple[Path, ...]
    annotations: Path | None = None


@dataclass(frozen=True)
class DataSpec:
    """One data set as its YAML states it; no image and no annotation has been opened yet.

    Attributes:
        name: Bare name, for messages and file names.
        source: The YAML file or the directory that was given.
        root: Directory that relative paths start from.
        names: Class names in label order; empty when the annotation files name them.
        splits: Sources by split name.
        protocol: Evaluation protocol (`rfla.metrics`), or None.
        sizes: Size ranges of the evaluation, or None.
        settings: Recommended configuration keys, nested or dotted, as written.
        model_settings: Further ones for single detectors: `{"fcos": {"assigner.topk": [6, 1]}}`.
        info: Licence, how to obtain the data, expected counts, ...
    """

    name: str
    source: Path
    root: Path
    names: tuple[str, ...]
    splits: Mapping[str, SplitSource]
    protocol: str | None = None
    sizes: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def parts(self, split: str) -> tuple[str, ...]:
        """Split names that `split` stands for: itself, `a+b`, or `trainval` as train+val where not defined itself.

        Raises:
            DataError: The data set has no such split.
        """
        if split == "trainval" and split not in self.splits:
            split = "train+val"
        parts = tuple(part.strip() for part in split.split("+"))
        for part in parts:
            if part not in self.splits:
                known = ", ".join(self.splits) or "none"
                raise DataError(
                    f"{self.source}: no split '{part}'; splits are {known}{did_you_mean(part, self.splits)}"
                )
        return parts

    def missing(self, what: Path) -> DataError:
        """The error for files that are not there: which, and how to obtain them when the YAML says so."""
        return DataError(missing_dataset_message(self.name, self.root, what, self.info))


def dataset_directories() -> list[Path]:
    """Where data sets are looked for: the directories of `RFLA_DATASETS`, the user's cache, `./datasets`."""
    given = [
        Path(part).expanduser()
        for part in os.environ.get("RFLA_DATASETS", "").split(os.pathsep)
        if part
    ]
    return [*given, cache_directory() / "datasets", Path("datasets").absolute()]


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/rfla` or `~/.cache/rfla`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "rfla"


def known_datasets() -> list[str]:
    """Names of the data YAMLs that come with the package."""
    return sorted(entry.stem for entry in _BUILT_IN.glob("*.yaml"))


def load_data_spec(data: str | Path) -> DataSpec:
    """Find and read a data set by bare name (`aitod`), YAML path, or directory.

    Raises:
        DataError: Nothing of that name, or a YAML that does not describe a data set.
    """
    path = _find(str(data))
    return _from_directory(path) if path.is_dir() else _from_yaml(path)


def _find(data: str) -> Path:
    if not data.strip():
        raise DataError(
            "data= is empty; give a data YAML, a directory or one of " + ", ".join(known_datasets())
        )
    bare = data.removesuffix(".yaml")
    if "/" not in data and bare in known_datasets() and not Path(data).is_file():
        return _BUILT_IN / f"{bare}.yaml"
    given = Path(data).expanduser()
    candidates = [
        given,
        given.with_name(given.name + ".yaml"),
        given.with_name(given.name + ".yml"),
    ]
    if not given.is_absolute():
        candidates += [
            base / name for base in dataset_directories() for name in (given, f"{given}.yaml")
        ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.absolute()
        if candidate.is_dir():
            inside = candidate / "data.yaml"
            return (inside if inside.is_file() else candidate).absolute()
    known = known_datasets()
    raise DataError(
        f"data={data}: no such data YAML or directory; built in are {', '.join(known)}{did_you_mean(data, known)}"
    )


def _from_directory(root: Path) -> DataSpec:
    images, annotations = root / "images", root / "annotations"
    order = {"train": 0, "val": 1, "test": 2}
    files = sorted(
        annotations.glob("*.json"), key=lambda file: (order.get(file.stem, 3), file.stem)
    )
    if not images.is_dir() or not files:
        raise DataError(
            f"{root}: neither data.yaml nor images/ with annotations/{{split}}.json is in this directory"
        )
    splits = {
        file.stem: SplitSource((_first_dir(images / file.stem, images),), file) for file in files
    }
    return DataSpec(name=root.name, source=root, root=root, names=(), splits=splits)


def _from_yaml(path: Path) -> DataSpec:
    content = {str(key): value for key, value in _read_yaml(path).items()}
    root = _root(path, content.get("path"))
    splits = {
        name: _split(path, root, name, value, content)
        for name, value in _split_entries(path, content).items()
    }
    if not splits:
        raise DataError(f"{path}: no split; give at least `train:` or `val:`")
    settings, model_settings = content.get("settings") or {}, content.get("model_settings") or {}
    for what in (
        settings,
        model_settings,
        *(model_settings.values() if isinstance(model_settings, dict) else ()),
    ):
        if not isinstance(what, dict):
            raise DataError(
                f"{path}: settings must be a mapping of configuration keys, not {what!r}"
            )
    return DataSpec(
        name=path.stem if path.stem != "data" else path.parent.name,
        source=path,
        root=root,
        names=_names(path, content),
        splits=splits,
        protocol=content.get("protocol"),
        sizes=content.get("sizes"),
        settings=settings,
        model_settings=model_settings,
        info={key: content[key] for key in sorted(INFO_KEYS & content.keys())},
    )


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        return read_yaml(path).values
    except ConfigError as error:
        raise DataError(str(error)) from None


def _root(path: Path, given: Any) -> Path:
    """Directory that the splits are relative to: the first candidate that exists, else the most likely one."""
    if given is None:
        return path.parent
    root = Path(str(given)).expanduser()
    if root.is_absolute():
        return root
    built_in = path.parent == _BUILT_IN
    candidates = [] if built_in else [path.parent / root]
    candidates += [base / root for base in dataset_directories()]
    candidates += [] if built_in else [Path.cwd() / root]
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])


def _names(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        return (
            tuple(f"class{index}" for index in range(int(count))) if isinstance(count, int) else ()
        )
    if isinstance(names, dict):
        try:
            ordered = {int(key): str(value) for key, value in names.items()}
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: names must be a list or {{0: first, 1: second, ...}}"
            ) from None
        if sorted(ordered) != list(range(len(ordered))):
            raise DataError(
                f"{path}: names must be numbered 0 to {len(ordered) - 1} without gaps, not {sorted(ordered)}"
            )
        names = [ordered[index] for index in range(len(ordered))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names must be a list of class names, not {names!r}")
    names = [str(name) for name in names]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: class '{twice}' is named twice")
    if isinstance(count, int) and count != len(names):
        raise DataError(f"{path}: nc is {count} but {len(names)} names are given")
    return tuple(names)


def _split_entries(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The splits: every key that is no known key and holds a place to look in, and those under `splits:`."""
    entries: dict[str, Any] = {}
    for key, value in content.items():
        if key in KNOWN_KEYS or value is None:
            continue
        if key.endswith("_json"):
            name = key.removesuffix("_json")
            images = content.get(name)
            entries[name] = {"annotations": value, **({"images": images} if images else {})}
            continue
        if key in entries:
            continue
        hint = did_you_mean(key, KNOWN_KEYS)
        if key not in {"train", "val", "test", "trainval", "minival"} and hint:
            raise DataError(f"{path}: unknown key '{key}'{hint}")
        if isinstance(value, str | list) or (isinstance(value, dict) and "annotations" in value):
            entries[key] = value
    extra = content.get("splits") or {}
    if not isinstance(extra, dict):
        raise DataError(f"{path}: splits must be a mapping of split names, not {extra!r}")
    return entries | {str(key): value for key, value in extra.items()}


def _split(
    path: Path, root: Path, name: str, value: Any, content: Mapping[str, Any]
) -> SplitSource:
    if isinstance(value, str) and value.endswith(".json"):
        value = {"annotations": value}
    if isinstance(value, dict):
        annotations = value.get("annotations")
        if not isinstance(annotations, str):
            raise DataError(f"{path}: split '{name}' needs `annotations: FILE.json`")
        images = value.get("images", content.get("images"))
        folder = (
            root / str(images)
            if images
            else _first_dir(root / "images" / name, root / "images", root)
        )
        return SplitSource((folder,), root / annotations)
    places = value if isinstance(value, list) else [value]
    if not places or not all(isinstance(place, str) for place in places):
        raise DataError(
            f"{path}: split '{name}' must be a directory, a .txt list or a list of those, not {value!r}"
        )
    return SplitSource(tuple(_yolo_place(root, place) for place in places))


def _yolo_place(root: Path, place: str) -> Path:
    """Ultralytics exports write `../train/images` for a directory that is in fact beside the YAML: take what exists."""
    path = root / Path(place).expanduser()
    if not path.exists() and place.startswith("../") and (root / place[3:]).exists():
        return root / place[3:]
    return path


def _first_dir(*candidates: Path) -> Path:
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[-1])
