"""Text in pictures, for class names of any script.

OpenCV draws ASCII alone. Other texts are drawn by Pillow in the first font that has their
characters: DejaVu Sans, which matplotlib brings (Latin, Greek, Cyrillic), then fonts of the system.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfla.errors import printable

Array = np.ndarray[Any, np.dtype[Any]]
Colour = Sequence[int]

FONT = cv2.FONT_HERSHEY_SIMPLEX
EM = 29.0  # px of DejaVu Sans whose capitals are as high as those of `FONT` at scale 1
# Families that have the scripts that DejaVu Sans lacks, on Linux, Windows and macOS.
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans"),
    *("Apple SD Gothic Neo", "Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI"),
    *("Arial Unicode MS", "Unifont"),
)
NAME_LETTERS = 24  # of a class name beside bars, boxes and tables
_ROUNDS = 3
LETTERS_BEFORE = 8  # that are kept of a word before the letter in which names differ


def short_name(name: str, letters: int = NAME_LETTERS) -> str:
    """Return a name in at most so many letters, without its middle where it is longer.

    The tail stays, since the names of a data set often differ at their end alone.
    """
    name = printable(name)
    if len(name) <= letters:
        return name
    kept = letters - len("...")
    return f"{name[: kept - kept // 2]}...{name[len(name) - kept // 2 :]}"


def short_names(names: Sequence[str], letters: int = NAME_LETTERS) -> list[str]:
    """Return the names of a data set as `short_name`, so that they can be told apart.

    Those that would look the same begin with the word in which they differ.
    """
    names = [printable(name) for name in names]
    short = {name: short_name(name, letters) for name in names}
    for _ in range(_ROUNDS):  # those that a first word leaves alike may differ in a later one
        alike: dict[str, list[str]] = {}
        for name, text in short.items():
            alike.setdefault(text, []).append(name)
        for group in alike.values():
            if len(group) > 1:
                start = _difference(group)
                short |= {name: _cut(f"...{name[start:]}", letters) for name in group}
    return [short[name] for name in names]


def _difference(names: Collection[str]) -> int:
    """Return where the word begins in which names differ first; of a long word, its last part."""
    first, last = min(names), max(names)  # what these two share, all between them share
    pairs = enumerate(zip(first, last, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), len(first))
    return max(first.rfind(" ", 0, same) + 1, same - LETTERS_BEFORE)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - len('...')]}..."


class TextSize(NamedTuple):
    """What a text takes, in px.

    Attributes:
        width: Of the whole text.
        letters: Height above the line that it stands on.
        base: Depth below that line.
    """

    width: int
    letters: int
    base: int


def text_size(text: str, scale: float) -> TextSize:
    """Return the size of a text; `scale` is OpenCV's, 1 for capitals of 21 px."""
    (width, letters), base = cv2.getTextSize(text, FONT, scale, 1)
    if not text.isascii():
        width = round(_font_for(text, scale).getlength(text))
    return TextSize(width, letters, base)


def put_text(
    canvas: Array,
    text: str,
    origin: tuple[int, int],
    scale: float,
    colour: Colour,
    thickness: int = 1,
) -> None:
    """Write a text on an (H, W, 3) picture.

    Args:
        canvas: Written on.
        text: One line.
        origin: x and y of its lower left corner, px; what reaches beyond the picture is cut off.
        scale: As in `text_size`.
        colour: RGB.
        thickness: Of the strokes, px.
    """
    if text.isascii():
        cv2.putText(canvas, text, origin, FONT, scale, colour, thickness, cv2.LINE_AA)
        return
    share, up = _letters(text, scale, thickness)
    x, y = origin[0], origin[1] - up
    left, top = max(-x, 0), max(-y, 0)
    below, right = max(y + len(share), 0), max(x + share.shape[1], 0)
    part = canvas[y + top : below, x + left : right]
    share = share[top : top + part.shape[0], left : left + part.shape[1]]
    part[...] = np.rint(part + (np.asarray(colour, np.float32) - part) * share)


@lru_cache(maxsize=512)
def _letters(text: str, scale: float, thickness: int) -> tuple[Array, int]:
    """Return how much of each pixel a text covers, (h, w, 1) from 0 to 1, and its line's row."""
    em = EM * scale
    up, down, width = round(1.2 * em), round(0.5 * em), text_size(text, scale).width + 4
    mask = Image.new("L", (width, up + down))
    ImageDraw.Draw(mask).text(
        (0, up),
        text,
        fill=255,
        font=_font_for(text, scale),
        anchor="ls",
        stroke_width=thickness - 1,
    )
    return np.asarray(mask, np.float32)[..., None] / 255, up


def fonts_for(texts: Iterable[str]) -> AbstractContextManager[None]:
    """Return a block in which matplotlib finds the characters of some texts, where a font has them.

    It looks for them in its own font, then in those of `FALLBACKS` that the system has.
    """
    if all(text.isascii() for text in texts):
        return nullcontext()
    from matplotlib import rc_context, rcParams

    families = [*rcParams["font.family"], *(name for name, _ in _installed())]
    return rc_context({"font.family": families})


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Return name and file of those of `FALLBACKS` that the system has."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}  # as at the first start of matplotlib
    for file in set(findSystemFonts()) - known:
        with suppress(Exception):  # whatever FreeType says of a font that it cannot read
            fontManager.addfont(file)
    files = {font.name: font.fname for font in fontManager.ttflist if font.style == "normal"}
    return tuple((name, files[name]) for name in FALLBACKS if name in files)


def _font_for(text: str, scale: float) -> ImageFont.FreeTypeFont:
    """Return the first font that has all characters of a text, else the one with most of them."""
    return _font(_file_for(frozenset(text)), max(round(EM * scale), 6))


@lru_cache(maxsize=32)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@lru_cache(maxsize=512)  # texts hold scores and counts: there is no end of them
def _file_for(letters: frozenset[str]) -> str:
    from matplotlib import get_data_path

    files = [f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", *(file for _, file in _installed())]
    codes = {ord(letter) for letter in letters}
    return max(files, key=lambda file: len(codes & _characters(file)))  # the first of the best


@cache
def _characters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())
