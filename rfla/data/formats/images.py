"""Find image files by the names that annotations use, and annotation files by their layout."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from rfla.data.image_files import is_image, walk_images
from rfla.data.record import Part
from rfla.errors import DataError
from rfla.files import open_regular

FOUND_ELSEWHERE = "images found under another path than the one written"
SPLITS = ("train", "val", "trainval", "test")
_SPLIT_NAMES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


class ImageFinder:
    r"""Look image files up by the name that an annotation file uses, however a tool has written it.

    As written; with `/` for the `\` of Windows; with `%20` and its like decoded; then without
    leading directories (`images/1/x.png`, `C:/Users/x.png`, `/data/upload/4/x.png` of Label
    Studio); then the one file of that name, or of that stem, anywhere below.

    Args:
        directories: Where to look, in this order, sub-directories included.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._listings: dict[str, frozenset[str]] = {}
        self._stems: dict[str, list[Path]] | None = None

    def paths(
        self, names: Sequence[str], other_names: Iterable[str] | None = None
    ) -> tuple[list[str | None], list[str]]:
        """Return the path of each of many names, and which were found otherwise than written.

        Args:
            names: As annotation files write them.
            other_names: What each may be called instead, or "".

        Raises:
            DataError: Several files could be meant.
        """
        found: list[str | None] = []
        odd: list[str] = []
        others = repeat("") if other_names is None else other_names
        for name, other in zip(names, others, strict=False):
            path, elsewhere = self.locate(name, str(other))
            if elsewhere:
                odd.append(f"{name} is {path}")
            found.append(path)
        return found, odd

    def locate(self, name: str, other: str = "") -> tuple[str | None, bool]:
        """Return the path of a name, and whether it was found otherwise than written.

        Args:
            name: As an annotation file writes it.
            other: What the image may be called instead, or "".

        Raises:
            DataError: Several files could be meant.
        """
        path = self._as_written(name)
        if path is not None:
            return path, False
        match = self.find(name) or (self.find(other) if other else None)
        # A stem, as formats with a file for each image have it, is no path that was missed.
        elsewhere = match is not None and is_image(Path(clean_name(name)))
        return None if match is None else str(match), elsewhere

    def _as_written(self, name: str) -> str | None:
        """Return the path of a name as it is written.

        One listing for each directory instead of one look for each image: a network drive is slow.
        """
        if not name or name.endswith("/") or "\0" in name:
            return None
        leaves = (".." in name or name.startswith("/")) and not is_image(Path(name))
        for directory in () if leaves else self.directories:
            path = os.path.join(directory, name)
            folder, last = os.path.split(path)
            if folder not in self._listings:
                self._listings[folder] = _listing(folder)
            if last in self._listings[folder]:
                return path
        return None

    def find(self, file_name: str) -> Path | None:
        """Return the file of that name.

        Else the one file with that stem and another image suffix; else None.

        Raises:
            DataError: Several files could be meant.
        """
        for relative in _spellings(file_name):
            for start in range(len(relative.parts)):
                tail = Path(*relative.parts[start:])
                for directory in self.directories:
                    if is_file(directory / tail):
                        return directory / tail
        if self._stems is None:
            self._stems = index_stems(self.directories)
        for relative in _spellings(file_name):
            match = self._by_stem(relative, file_name)
            if match is not None:
                return match
        return None

    def _by_stem(self, relative: PurePosixPath, file_name: str) -> Path | None:
        assert self._stems is not None
        matches = self._stems.get(_composed(relative.stem), []) or self._stems.get(
            _composed(relative.name), []
        )
        same_name = [
            match for match in matches if _composed(match.name) == _composed(relative.name)
        ]
        matches = same_name or matches
        if len(matches) > 1:
            raise DataError(f"{file_name}: ambiguous; it could be {matches[0]} or {matches[1]}")
        return matches[0] if matches else None


def _spellings(file_name: str) -> list[PurePosixPath]:
    """Return the relative paths that a name may mean, the most likely first."""
    plain = unquote(file_name)
    local = plain.rpartition("?d=")[2]  # Label Studio: /data/local-files/?d=folder/x.png
    texts = [file_name, plain, local]
    # Label Studio writes eight digits in front of the name of an uploaded file.
    uploaded = clean_name(local)
    prefix, _, rest = uploaded.name.partition("-")
    if len(prefix) == 8 and rest and set(prefix) <= set("0123456789abcdef"):
        texts.append(str(uploaded.with_name(rest)))
    return list(dict.fromkeys(clean_name(text) for text in texts))


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (OSError, ValueError):
        return frozenset()


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; one that the file system cannot take is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long for the file system, or holds a NUL
        return False


def _composed(name: str) -> str:
    """Return a name as most systems write it; Macs part letters from their accents."""
    return unicodedata.normalize("NFC", name)


def clean_name(file_name: str) -> PurePosixPath:
    """Return an image name as a relative path that cannot leave its directory."""
    parts = [
        part
        for part in PurePosixPath(file_name.replace("\\", "/")).parts
        if part not in {"/", "//", "..", "."}
    ]
    return PurePosixPath(*parts) if parts else PurePosixPath("unnamed")


def index_stems(directories: Sequence[Path]) -> dict[str, list[Path]]:
    """Return all images below the directories by stem, accents composed."""
    stems: dict[str, list[Path]] = {}
    for path in dict.fromkeys(path for directory in directories for path in walk_images(directory)):
        stems.setdefault(_composed(path.stem), []).append(path)
    return stems


def split_of(name: str) -> str | None:
    """Return the split that a name states: `VisDrone2019-DET-test-dev` -> `test`."""
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    for word in words:
        word = word.rstrip("0123456789")  # train2017
        split = _SPLIT_NAMES.get(word, word)
        if split in SPLITS:
            return split
    return None


def root_of(file: Path) -> Path:
    """Return the data set's directory of an annotation file: above `annotations`, or its own."""
    return file.parent.parent if file.parent.name.lower() == "annotations" else file.parent


def image_folders(root: Path, split: str) -> tuple[Path, ...]:
    """Return the directories to look in for the images of a split, the most likely first."""
    names = (f"images/{split}", f"Images/{split}", split, f"{split}2017", "images", "Images", ".")
    return tuple(root / name for name in names if (root / name).is_dir())


def first_directory(*candidates: Path) -> Path | None:
    """Return the first candidate that is a directory."""
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def require_directory(source: Path) -> Path:
    """Return `source`.

    Raises:
        DataError: It is no directory.
    """
    if not source.is_dir():
        if os.path.lexists(source):
            open_regular(source).close()  # refuses pipes, devices and circles of links
            raise DataError(f"source={source}: is a file; this format is read from a directory")
        raise DataError(f"source={source}: no such directory")
    return source


def find_folders(
    source: Path, labels: Sequence[str], images: Sequence[str], suffix: str
) -> dict[str, Part]:
    """Find the splits of a format with one annotation file for each image.

    Layouts: `labels/{split}` + `images/{split}`; `{split name}/labels` + `{split name}/images`;
    `labels` + `images`; all files in one directory. Without a split name it is `train`.

    Args:
        source: Directory that was given.
        labels: Names that the annotation directory may have.
        images: Names that the image directory may have.
        suffix: Suffix of annotation files, e.g. `.txt`.

    Raises:
        DataError: There are no such files.
    """
    parts: dict[str, Part] = {}
    named = sorted(
        path
        for path in require_directory(source).iterdir()
        if path.is_dir() and split_of(path.name)
    )
    for folder in named:
        _add(
            parts,
            split_of(folder.name) or "train",
            _folder_part(folder, labels, images, suffix),
            folder,
        )
    label_root = first_directory(*(source / name for name in labels))
    if label_root is not None:
        named = sorted(
            path for path in label_root.iterdir() if path.is_dir() and split_of(path.name)
        )
        for folder in [path for path in named if not _is_double(path)]:
            roots = [source / name / folder.name for name in images] + [
                source / name for name in images
            ]
            found = first_directory(*roots) or folder
            part = Part(_files(folder, suffix), (found,))
            _add(
                parts, split_of(folder.name) or "train", part if part.annotations else None, folder
            )
    if not parts:
        _add(
            parts,
            split_of(source.name) or "train",
            _folder_part(source, labels, images, suffix),
            source,
        )
    if not parts:
        raise DataError(
            f"source={source}: no {suffix} files, here or in "
            f"{' or '.join(f'{name}/' for name in labels)}"
        )
    return parts


def _folder_part(
    folder: Path, labels: Sequence[str], images: Sequence[str], suffix: str
) -> Part | None:
    label_folder = first_directory(*(folder / name for name in labels)) or folder
    image_folder = first_directory(*(folder / name for name in images)) or folder
    files = _files(label_folder, suffix)
    if not files and label_folder is not folder:
        files = _files(label_folder, suffix, "*/*")  # as DOTA's archives unpack
    return Part(files, (image_folder,)) if files else None


def _files(folder: Path, suffix: str, pattern: str = "*") -> tuple[Path, ...]:
    found = [
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() == suffix and path.is_file() and not path.name.startswith(".")
    ]
    return tuple(sorted(path for path in found if not _is_double(path.parent)))


def _is_double(folder: Path) -> bool:
    """Tell whether a directory repeats the one beside it: DOTA's `..._hbb`, of its polygons."""
    return (
        folder.name.endswith("_hbb") and folder.with_name(folder.name.removesuffix("_hbb")).is_dir()
    )


def _add(parts: dict[str, Part], split: str, part: Part | None, folder: Path) -> None:
    if part is None:
        return
    if split in parts:
        raise DataError(
            f"{folder}: a second directory for split '{split}'; "
            f"convert one of them with split={split}"
        )
    parts[split] = part
