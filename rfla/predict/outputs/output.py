"""What every output is: a small class that writes one kind of file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfla.cfg import Config
from rfla.predict.names import Name
from rfla.results import Results

AT_A_TIME = 10_000  # detections turned into text at once: a scene has hundreds of thousands


def parts_of(results: Results) -> Iterator[Results]:
    """Yield the detections of one image, some at a time; of none at all an empty part."""
    for start in range(0, max(len(results), 1), AT_A_TIME):
        yield results[start : start + AT_A_TIME]


@dataclass(frozen=True)
class Row:
    """What is kept of an image until the end of the run.

    Attributes:
        name: How it is called in files.
        results: Its detections, without pixels.
    """

    name: Name
    results: Results


class Output:
    """One kind of file; subclasses write it in one of the three methods.

    Args:
        run_dir: Exists, and is ours.
        cfg: How files are written.
    """

    key = ""  # the setting that asks for it

    def __init__(self, run_dir: Path, cfg: Config):
        self.run_dir, self.cfg = run_dir, cfg
        self.left_out: list[str] = []  # a line for each image of which it could write no file

    @classmethod
    def wanted(cls, cfg: Config) -> bool:
        """Whether the settings ask for it."""
        return bool(getattr(cfg, cls.key))

    def add(self, name: Name, results: Results) -> None:
        """Write what belongs to one image. Frames of a video come in order."""

    def close(self) -> None:
        """Complete the files of this process, after its last image or an interrupt."""

    def finish(self, rows: Sequence[Row]) -> None:
        """Write what belongs to the whole run, from the images of all processes, in order.

        The main process alone does that.
        """

    def path_of(self, name: Name, suffix: str, folder: str = "") -> Path:
        """Return the file of one image, in a directory that is there."""
        path = self.run_dir / folder / name.stem.with_name(f"{name.stem.name}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
