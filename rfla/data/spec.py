"""What a data set is made of: a data YAML, a directory or an annotation file -> `DataSpec`.

By bare name or by path. A directory is a data set where it holds a `data.yaml`, `images/` with
`annotations/{split}.json`, or annotations of a format that `rfla convert` reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfla.cfg.yaml_file import is_yaml
from rfla.data.data_yaml import (
    BUILT_IN,
    INFO_KEYS,
    YAML_NAMES,
    DataYaml,
    SplitSource,
    dataset_directories,
    exists,
    expanded,
    first_dir,
    read_data_yaml,
)
from rfla.data.obtain import missing_dataset_message
from rfla.data.record import Part
from rfla.errors import DataError, did_you_mean
from rfla.files import open_regular

DEMO_YAML = BUILT_IN / "demo.yaml"  # the one data set that `rfla.tools.demo` makes


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
        """Split names that `split` stands for: itself, `a+b`, or train+val for `trainval`.

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
                    f"{self.source}: no split '{part}'; splits are {known}"
                    f"{did_you_mean(part, self.splits)}"
                    + ("; validate with split=train, or not: val=false" if part == "val" else "")
                )
        return parts

    def missing(self, what: Path) -> DataError:
        """The error for files that are not there, and how to obtain them where the YAML says so."""
        return DataError(missing_dataset_message(self.name, self.root, what, self.info))


def known_datasets() -> list[str]:
    """Names of the data YAMLs that come with the package."""
    return sorted(entry.stem for entry in BUILT_IN.glob("*.yaml"))


def load_data_spec(data: str | Path) -> DataSpec:
    """Find and read a data set by bare name (`aitod`), YAML path, directory, or annotation file.

    Raises:
        DataError: Nothing of that name, or a YAML that does not describe a data set.
    """
    path = _find(str(data))
    if is_yaml(path):
        return _from_yaml(read_data_yaml(path))
    return _recognised(path)


def _find(data: str) -> Path:
    if not data.strip():
        raise DataError(
            "data= is empty; give a data YAML, a directory or one of " + ", ".join(known_datasets())
        )
    bare = data.removesuffix(".yaml")
    if "/" not in data and bare in known_datasets() and not Path(data).is_file():
        return BUILT_IN / f"{bare}.yaml"
    given = expanded(data)
    candidates = [given, Path(f"{given}.yaml"), Path(f"{given}.yml")]
    if not given.is_absolute():
        candidates += [
            base / name for base in dataset_directories() for name in (given, f"{given}.yaml")
        ]
    for candidate in candidates:
        if exists(candidate) and not candidate.is_dir():
            open_regular(candidate).close()  # refuses pipes and devices
            return candidate.absolute()
        if candidate.is_dir():
            inside = [candidate / name for name in YAML_NAMES]
            return next((path for path in inside if path.is_file()), candidate).absolute()
    known = known_datasets()
    raise DataError(
        f"data={data}: no such data YAML, directory or annotation file; built in are "
        f"{', '.join(known)}{did_you_mean(data, known)}"
    )


def _recognised(path: Path) -> DataSpec:
    """The data set of a directory or an annotation file without a data YAML, by what is in it."""
    from rfla.data.formats import recognise

    found = _coco_folders(path)
    format = "coco"
    if not found:
        format, found = recognise(path)
    splits = {name: SplitSource(format, part) for name, part in found.items()}
    root = path if path.is_dir() else path.parent
    return DataSpec(path.stem, source=path, root=root, names=(), splits=splits)


def _coco_folders(root: Path) -> dict[str, Part]:
    """The splits of `images/` with `annotations/{split}.json`, the form that rfla writes."""
    images, order = root / "images", {"train": 0, "val": 1, "test": 2}
    files = sorted(
        (root / "annotations").glob("*.json"),
        key=lambda file: (order.get(file.stem, 3), file.stem),
    )
    if not images.is_dir() or not any(file.stem in order for file in files):
        return {}
    return {
        file.stem: Part((file,), (first_dir(images / file.stem, images), root)) for file in files
    }


def _from_yaml(yaml: DataYaml) -> DataSpec:
    path, content, splits = yaml.path, yaml.content, yaml.splits
    if yaml.format:
        splits = _splits_of(yaml)
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
                f"{path}: settings must be a mapping of configuration keys, not {what!r:.80}"
            )
    return DataSpec(
        name=path.stem if path.stem != "data" else path.parent.name,
        source=path,
        root=yaml.root,
        names=yaml.names,
        splits=splits,
        protocol=content.get("protocol"),
        sizes=content.get("sizes"),
        settings=settings,
        model_settings=model_settings,
        info={key: content[key] for key in sorted(INFO_KEYS & content.keys())},
    )


def _splits_of(yaml: DataYaml) -> dict[str, SplitSource]:
    """The splits that a format finds itself below `path:`."""
    from rfla.data.formats import FORMATS

    if yaml.format not in FORMATS:
        raise DataError(
            f"{yaml.path}: format '{yaml.format}' is none of {', '.join(FORMATS)}"
            f"{did_you_mean(yaml.format, FORMATS)}"
        )
    found = FORMATS[yaml.format].find(yaml.root)
    return {name: SplitSource(yaml.format, part) for name, part in found.items()}
