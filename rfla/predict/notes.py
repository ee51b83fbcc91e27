"""What a user should know of a prediction: what was skipped, shrunk, or cut off by a limit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Notes:
    """Remarks of one pass over images.

    Attributes:
        images: Images that were read.
        skipped: One line for each image that could not be read.
        left_out: One line for each file of an image that could not be written.
        remarks: What `read_image` remarked, with the number of images.
        shrunk: Images that were larger than the network's input, without slices.
        most: By how much the most shrunk of them was shrunk.
        largest: Its height and width, px.
        slices: Slices of images of which some were empty.
        empty: Slices that hold nodata alone and were left out.
        full: Images on which `max_det` was reached, in one slice at least.
    """

    images: int = 0
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    shrunk: int = 0
    most: float = 1.0
    largest: tuple[int, int] = (0, 0)
    slices: int = 0
    empty: int = 0
    full: int = 0

    def shrink(self, shape: tuple[int, int], times: float) -> None:
        """Note an image that is larger than the network's input, by so many times."""
        self.shrunk += 1
        if times > self.most:
            self.most, self.largest = times, shape

    def resize(self, gsd: float, trained: float | None) -> None:
        """Note an image that is resized to the metres a pixel that the network knows."""
        if trained is not None:
            self.remarks[
                f"{gsd:.3g} m a pixel, the model was trained at {trained:.3g} m: resized to "
                f"{gsd / trained:.3g} of its size"
            ] += 1

    def lines(self, imgsz: int, max_det: int, sliced: bool = False) -> list[str]:
        """Return one line for each kind of remark, with what to type."""
        lines = [f"{text} ({count:,} of {self.images:,})" for text, count in self.remarks.items()]
        if self.shrunk:
            height, width = self.largest
            lines.append(
                f"{self.shrunk:,} of {self.images:,} images are larger than imgsz={imgsz}: objects "
                f"are shrunk up to {self.most:.3g} times ({width} x {height} px); slice={imgsz} "
                "keeps their size, a larger imgsz= shrinks them less"
            )
        if self.empty:
            lines.append(
                f"{self.empty:,} of {self.slices:,} slices hold nodata alone: the network did not "
                "see them"
            )
        if self.full:
            where, way = (" in a slice", "smaller slices") if sliced else ("", "slices")
            lines.append(
                f"{self.full:,} of {self.images:,} images reached max_det={max_det}{where}: boxes "
                f"beyond it are left out; max_det={2 * max_det} keeps more, as do {way}"
            )
        return lines

    def take(self, part: "Notes") -> None:
        """Add the notes of other images."""
        self.images += part.images
        self.skipped += part.skipped
        self.left_out += part.left_out
        self.remarks += part.remarks
        self.shrunk += part.shrunk
        if part.most > self.most:
            self.most, self.largest = part.most, part.largest
        self.slices += part.slices
        self.empty += part.empty
        self.full += part.full


def joined(parts: Sequence[Notes]) -> Notes:
    """Return the notes of several processes as one."""
    whole = Notes()
    for part in parts:
        whole.take(part)
    return whole
