"""What a build of AI-TOD made, and what is missing: scenes, and the images that need them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Images of the published splits (AI-TOD, ICPR 2020; AI-TOD-v2 has the same images).
PUBLISHED = {"train": 11214, "val": 2804, "trainval": 14018, "test": 14018}
SHOWN = 20


@dataclass
class AitodReport:
    """The outcome of `build_aitod`.

    Attributes:
        out: The directory that was written.
        channel_order: `official` or `rgb`.
        wanted: Images that the annotations name.
        made: Images made or placed by this run.
        checksums: SHA-256 of every image that is there and has its annotated size, by path below
            `out`.
        missing_scenes: xView scenes that were not found, with the number of images that need them.
        missing_images: Images of the part without xView that were not found.
        problems: Images that are wrong, and why.
        notes: What is good to know.
    """

    out: Path
    channel_order: str
    wanted: int
    made: int = 0
    checksums: dict[str, str] = field(default_factory=dict)
    missing_scenes: Counter[str] = field(default_factory=Counter)
    missing_images: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every annotated image is there and right."""
        return len(self.checksums) == self.wanted and not self.problems

    def miss(self, name: str, scene: str | None) -> None:
        """Note an image without a source."""
        if scene is None:
            self.missing_images.append(name)
        else:
            self.missing_scenes[scene] += 1

    def count_splits(
        self, files: Mapping[str, Path], images: Mapping[str, int], shared: int
    ) -> None:
        """Compare the number of images of each annotation file with what was published."""
        for key in files:
            published = PUBLISHED[key.rpartition("_")[2]]
            if images[key] != published:
                self.notes.append(
                    f"{files[key].name} lists {images[key]:,} images; "
                    f"{published:,} were published for {key}"
                )
        if shared:
            self.notes.append(
                f"{shared:,} xView scenes have tiles both in trainval and in test, "
                "as the authors split them"
            )

    def missing_lines(self) -> list[str]:
        """Return every missing scene and image and every problem, one in a line."""
        scenes = sorted(self.missing_scenes.items(), key=lambda item: int(item[0]))
        lines = [f"scene {scene}.tif is missing: {count} images need it" for scene, count in scenes]
        lines += [
            f"{name} is missing from the part without xView" for name in sorted(self.missing_images)
        ]
        return lines + sorted(self.problems)

    def table(self) -> str:
        """Return the summary as text."""
        there = len(self.checksums)
        scenes = len(self.missing_scenes)
        lines = [
            f"images that the annotations name  {self.wanted:>8,}",
            f"there, of the right size          {there:>8,}   ({self.made:,} of them made now)",
            f"missing for want of xView scenes  {self.missing_scenes.total():>8,}   "
            f"({scenes:,} scenes)",
            f"missing from the other part       {len(self.missing_images):>8,}",
            f"wrong                             {len(self.problems):>8,}",
            f"channel order of xView tiles: {self.channel_order}",
            *(f"note: {note}" for note in self.notes),
        ]
        missing = self.missing_lines()
        lines += missing[:SHOWN]
        if len(missing) > SHOWN:
            lines.append(
                f"... and {len(missing) - SHOWN:,} more lines in {self.out / 'missing.txt'}"
            )
        end = f"complete: train with data={self.out / 'data.yaml'}"
        again = (
            "NOT complete: no data.yaml was written; add what is missing and run the same command "
            "again"
        )
        return "\n".join([*lines, end if self.complete else again])
