"""Class names of any script in pictures."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams

from rfla.pictures import curves, text
from rfla.pictures.text import fonts_for, put_text, short_name, short_names, text_size

WHITE = (255, 255, 255)


def drawn(words: str, origin: tuple[int, int] = (5, 40), scale: float = 1.0) -> np.ndarray:
    canvas = np.zeros((60, 200, 3), np.uint8)
    put_text(canvas, words, origin, scale, WHITE)
    return canvas


@pytest.mark.parametrize("words", ["Bäume", "Корабль", "πλοίο", "ship"])
def test_letters_are_drawn_within_their_size(words: str) -> None:
    """Inside the width that is stated, from the line up; each word is a picture of its own."""
    size = text_size(words, 0.55)
    rows, columns = np.nonzero(drawn(words, scale=0.55).any(axis=2))
    assert columns.min() >= 5 and columns.max() <= 5 + size.width + 1
    assert 40 - 2 * size.letters <= rows.min() and rows.max() <= 40 + size.base + 2
    assert not np.array_equal(drawn(words), drawn("?" * len(words)))


def test_capitals_are_as_high_as_those_of_opencv() -> None:
    heights = [np.ptp(np.nonzero(drawn(words).any(axis=2))[0]) for words in ("H", "Н")]
    assert abs(heights[0] - heights[1]) <= 2  # the second one is Cyrillic


@pytest.mark.parametrize("origin", [(-20, 40), (150, 40), (5, 4), (5, 58), (-500, 40), (5, 400)])
def test_what_reaches_beyond_the_picture_is_cut_off(origin: tuple[int, int]) -> None:
    """A part of a larger picture, as it would be drawn there."""
    large = np.zeros((660, 1200, 3), np.uint8)
    put_text(large, "Öl", (origin[0] + 600, origin[1] + 200), 1.0, WHITE)
    assert np.array_equal(drawn("Öl", origin), large[200:260, 600:800])


def test_a_letter_covers_its_ground_in_part_at_its_edge() -> None:
    canvas = np.full((60, 200, 3), 100, np.uint8)
    put_text(canvas, "Ö", (5, 40), 1.0, (0, 200, 100))
    red, green, blue = canvas[:, :50].reshape(-1, 3).T.astype(int)
    assert red.min() == 0 and green.max() == 200 and set(blue) == {100}
    assert np.abs(2 * (100 - red) // 2 - (green - 100)).max() <= 1  # both by the same share


def test_the_font_that_has_most_of_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """DejaVu Sans where no font has all, else the first that has them."""
    has = {"dejavu": {"a", "ä"}, "one": {"船", "a"}, "two": {"船", "a", "ä"}}
    monkeypatch.setattr(text, "_installed", lambda: (("One", "one"), ("Two", "two")))
    monkeypatch.setattr(
        text,
        "_characters",
        lambda file: {ord(letter) for letter in has.get(file, has["dejavu"])},
    )
    chosen = [text._file_for.__wrapped__(frozenset(word)) for word in ("aä", "船", "船ä", "🚢")]
    assert [file.rpartition("/")[2] for file in chosen] == [
        "DejaVuSans.ttf",
        "one",
        "two",
        chosen[0].rpartition("/")[2],
    ]


def test_figures_look_into_the_same_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_installed", lambda: (("One", "one"),))
    before = list(rcParams["font.family"])
    with fonts_for(["ship", "船"]):
        assert list(rcParams["font.family"]) == [*before, "One"]
    with fonts_for(["ship"]):
        assert list(rcParams["font.family"]) == before
    assert list(rcParams["font.family"]) == before


def test_texts_without_end_take_no_memory() -> None:
    """Counts and scores make each text another one; its font is the same."""
    text._font.cache_clear()
    for number in range(700):
        text_size(f"Ö {number}", 0.55)
    assert text._font.cache_info().currsize == 1
    assert text._file_for.cache_info().maxsize == 512


@pytest.mark.parametrize("origin", [(5, -8), (-300, 20), (5, -300), (300, 20)])
def test_text_beyond_the_picture_is_nowhere(origin: tuple[int, int]) -> None:
    assert not drawn("Ö", origin).any()


def test_labels_of_a_plot_find_their_font(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A figure's first ticks decide the font of all."""
    seen = []
    monkeypatch.setattr(text, "_installed", lambda: (("One", "one"),))
    monkeypatch.setattr(curves, "write_figure", lambda figure, _: seen.append(figure))
    boxes, none = np.array([[0.0, 0, 4, 4]]), np.array([1])
    curves.plot_labels(tmp_path / "a.png", boxes, np.array([0]), none, ["船"])
    labels = seen[0].axes[0].get_yticklabels()
    assert [label.get_fontfamily()[-1] for label in labels] == ["One"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", ""),
        ("a name of 24 letters, so", "a name of 24 letters, so"),
        ("extraordinarily long name 07", "extraordina...ng name 07"),  # 11, the dots, 10
        ("\x1b[31mship", "\\x1b[31mship"),
    ],
)
def test_a_long_name_keeps_its_tail(name: str, shown: str) -> None:
    assert short_name(name) == shown and len(shown) <= 24


def test_the_shortest_names() -> None:
    assert [short_name("abcdefgh", letters) for letters in (3, 4, 5)] == ["...", "a...", "a...h"]


def test_long_names_that_differ_in_their_middle() -> None:
    """They begin with the word in which they differ; a name that is alone keeps head and tail."""
    common = "extraordinarily long class name number {} (armoured vehicle)"
    names = [common.format(number) for number in (10, 19)]
    assert short_names([*names, "ship", "a" * 30, *names[:1]]) == [
        "...10 (armoured vehicle)",
        "...19 (armoured vehicle)",
        "ship",
        "a" * 11 + "..." + "a" * 10,
        "...10 (armoured vehicle)",
    ]
    assert short_names(names[:1] * 2) == ["extraordina...d vehicle)"] * 2
    parts = ["x" * 30 + part + "y" * 30 for part in "ab"]
    assert short_names(parts) == [f"...xxxxxxxx{part}yyyyyyyyy..." for part in "ab"]
    two = ["one text of ONE", *(f"one text of TWO {'x' * 30} {n}" for n in (1, 2))]
    assert len(set(short_names([f"{name} and one same tail of words" for name in two]))) == 3
    assert short_names([]) == []
