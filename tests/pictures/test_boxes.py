"""Boxes on images: what is enlarged, what is drawn where."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rfla.pictures.boxes import (
    IGNORED,
    PALETTE,
    add_legend,
    colour_of,
    draw_boxes,
    enlarge,
    name_of,
    tile_pictures,
    write_picture,
    zoom_factor,
)
from rfla.pictures.curves import _draw_curves, new_figure, plot_labels, plot_results

NAMES = ("ship", "car")


@pytest.mark.parametrize(
    ("size", "factor"), [((64, 64), 6), ((256, 256), 4), ((800, 800), 1), ((4000, 10), 1)]
)
def test_small_images_are_enlarged(size: tuple[int, int], factor: int) -> None:
    assert zoom_factor(*size) == factor


def test_a_pixel_stays_a_pixel() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (enlarge(image, 3)[3:, :3] == image[1, 0]).all()


def test_the_line_runs_round_the_object_and_not_over_it() -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    picture = draw_boxes(image, np.array([[10.0, 10, 16, 16]]), np.array([1]), NAMES)
    inside = picture[60:96, 60:96]  # the object's own pixels, six times as large
    assert (inside == 0).all()
    assert tuple(picture[59, 70]) == colour_of(1)


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("label", range(12))
def test_a_line_shows_on_any_ground(ground: int, label: int) -> None:
    """Each colour is light and its outer edge dark: one of the two stands off from any ground."""
    image = np.full((800, 800, 3), ground, np.uint8)
    picture = draw_boxes(
        image, np.array([[400.0, 400, 406, 406]]), np.array([label]), [str(i) for i in range(12)]
    )
    outwards = picture[403, 397:401].astype(int)  # ground, edge, line, object
    assert outwards[0].tolist() == outwards[3].tolist() == [ground] * 3
    assert tuple(outwards[2]) == colour_of(label)
    assert outwards[2].max() - outwards[1].max() > 150
    assert max(np.abs(outwards[i] - ground).max() for i in (1, 2)) > 100


def test_edges_cover_no_neighbours_line() -> None:
    """Two objects side by side: the line of the first stays whole, the second is drawn later."""
    image = np.full((800, 800, 3), 200, np.uint8)
    boxes = np.array([[400.0, 400, 406, 406], [407, 400, 413, 406]])
    picture = draw_boxes(image, boxes, np.array([0, 0]), NAMES)
    assert (picture[400:406, 406] == colour_of(0)).all()


def tags_of(boxes: np.ndarray, show_labels: bool | None) -> np.ndarray:
    """Where the pixels of names lie: what differs from the same picture without them."""
    image, labels = np.full((800, 800, 3), 90, np.uint8), np.zeros(len(boxes), np.int64)
    scores = np.linspace(0.9, 0.1, len(boxes))
    plain, named = (
        draw_boxes(image, boxes, labels, NAMES, scores, show_labels=show, legend=False)
        for show in (False, show_labels)
    )
    return (plain != named).any(axis=2)


def test_names_cover_neither_boxes_nor_each_other() -> None:
    """A column of boxes 2 px apart: names stand above the first, below the last, else beside."""
    boxes = np.array([[300.0, y, 330, y + 22] for y in range(300, 444, 24)])
    written = tags_of(boxes, None)
    for x1, y1, x2, y2 in boxes.astype(int):
        assert not written[y1:y2, x1:x2].any()
    assert written[280:297, 300:330].any()  # above the first
    assert written[300:440, 333:400].sum(axis=0).any()  # to the right of others
    count, _ = cv2.connectedComponents(written.astype(np.uint8))
    assert count - 1 >= len(boxes)  # letters and tags: at least one part for each


def test_names_without_room_are_left_out_unless_asked_for() -> None:
    """A grid of 7 x 7 boxes that touch: those inside have no room around them."""
    x, y = np.meshgrid(np.arange(300, 440, 20.0), np.arange(300, 440, 20.0))
    boxes = np.stack([x.ravel(), y.ravel(), x.ravel() + 20, y.ravel() + 20], axis=1)
    inside = (slice(300, 440), slice(300, 440))
    assert not tags_of(boxes, None)[inside].any()
    assert tags_of(boxes, None).any()
    assert tags_of(boxes, True)[inside].any()


def test_points_in_the_colour_of_their_box() -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    points = (np.array([[100.0, 50.0]]), np.array([0]))
    picture = draw_boxes(image, np.array([[10.0, 10, 16, 16]]), np.array([1]), NAMES, points=points)
    assert tuple(picture[300, 600]) == colour_of(1)


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_boxes(count: int) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 320, (count, 2))
    boxes = np.concatenate([corners, corners + 6], axis=1)
    image = np.zeros((300, 300, 3), np.uint8)
    picture = draw_boxes(image, boxes, rng.integers(0, 2, count), NAMES, rng.uniform(0, 1, count))
    assert picture.shape == (928, 900, 3)


def test_a_note_stands_behind_the_legend() -> None:
    image, none = np.zeros((100, 200, 3), np.uint8), np.zeros((0, 4))
    plain, noted = (
        draw_boxes(image, none, np.zeros(0, np.int64), NAMES, note=note)
        for note in ("", "(scores from 0.3)")
    )
    changed = np.flatnonzero((plain != noted).any(axis=(1, 2)))
    assert len(changed) and changed.min() >= 500  # the image itself is not written on
    assert (plain[500:, :60] == noted[500:, :60]).all()  # "no boxes" is still there


def test_tiles_and_files(tmp_path: Path) -> None:
    sheet = tile_pictures([np.full((10, 20, 3), i, np.uint8) for i in (50, 100, 150)])
    assert sheet.shape == (26, 46, 3)
    assert (sheet[0, 0, 0], sheet[0, 26, 0], sheet[16, 0, 0], sheet[25, 45, 0]) == (
        50,
        100,
        150,
        12,
    )
    low, high = np.full((4, 20, 3), 50, np.uint8), np.full((10, 8, 3), 90, np.uint8)
    sheet = tile_pictures([low, low, high, low])  # each row as high as its highest
    assert sheet.shape == (20, 46, 3) and (sheet[4:10] == 12).all() and sheet[10, 0, 0] == 90
    write_picture(tmp_path / "x" / "a.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert cv2.imread(str(tmp_path / "x" / "a.png"))[0, 0].tolist() == [0, 0, 255]


def test_a_full_disk_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    picture, curves, labels = (tmp_path / name for name in ("a.jpg", "r.png", "l.png"))
    write_picture(picture, np.zeros((4, 4, 3), np.uint8))
    before = picture.read_bytes()
    monkeypatch.setattr(os, "replace", full)  # written, not yet renamed
    writers = {
        picture: lambda: write_picture(picture, np.full((400, 400, 3), 9, np.uint8)),
        curves: lambda: plot_results(curves, {"epoch": [1.0], "lr": [0.1]}),
        labels: lambda: plot_labels(
            labels, np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(3), NAMES
        ),
    }
    for path, write in writers.items():
        with pytest.raises(OSError, match="No space left") as error:
            write()
        assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == ["a.jpg"] and picture.read_bytes() == before


def test_no_curve_runs_through_a_name_of_the_legend() -> None:
    figure, axes = new_figure(1, 1, 4, 3.2)
    axis = axes[0, 0]
    lines = {f"s{i}.loss_bbox": np.full(12, 1.0 + i / 100) for i in range(8)}
    _draw_curves(axis, "training losses", range(1, 13), lines)
    figure.canvas.draw()
    names = axis.get_legend().get_window_extent()
    highest = max(axis.transData.transform((1, line.get_ydata().max()))[1] for line in axis.lines)
    assert highest < names.y0 and names.x1 <= axis.bbox.x1


def test_ignored_boxes_are_of_no_class_in_the_labels_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converted VisDrone set has regions of label -1; `bincount` takes none of them."""
    counted: list[list[int]] = []
    monkeypatch.setattr(
        "rfla.pictures.curves._draw_classes", lambda _, number, names: counted.append(list(number))
    )
    boxes = np.array([[0, 0, 5, 5.0], [2, 2, 9, 8], [1, 1, 4, 4]])
    plot_labels(tmp_path / "l.png", boxes, np.array([-1, 1, 1]), np.array([3]), NAMES)
    assert counted == [[0, 2]] and (tmp_path / "l.png").stat().st_size


def test_boxes_are_counted_in_whole_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are two, or none: no tick at 0.25 boxes, none below zero."""
    figures: list[Any] = []
    monkeypatch.setattr(
        "rfla.pictures.curves.write_figure", lambda figure, _: figures.append(figure)
    )
    two = np.array([[0, 0, 5, 5.0], [2, 2, 9, 8]])
    plot_labels(tmp_path, two, np.array([0, 0]), np.array([2, 0]), NAMES)
    plot_labels(tmp_path, two[:0], np.zeros(0, np.int64), np.zeros(3, np.int64), NAMES)
    for figure in figures:
        figure.canvas.draw()
        by_class, by_size, by_image = figure.axes[:3]
        for axis in (by_class.xaxis, by_size.yaxis, by_image.xaxis, by_image.yaxis):
            ticks = axis.get_majorticklocs()
            low, high = sorted(axis.get_view_interval())
            seen = ticks[(ticks >= low) & (ticks <= high)]
            assert len(seen) and (seen >= 0).all() and (seen == seen.round()).all()


def test_losses_of_each_stage_of_a_cascade_are_drawn(tmp_path: Path) -> None:
    plot_results(tmp_path / "a.png", {"epoch": [1.0], "train/s0.loss_cls": [1.0]})
    assert cv2.imread(str(tmp_path / "a.png")).shape[:2] == (352, 440)


def test_curves(tmp_path: Path) -> None:
    columns = {
        "epoch": [1.0, 2.0],
        "train/loss_cls": [1.0, 0.5],
        "lr": [0.1, 0.1],
        "metrics/ap": [float("nan"), 0.1],
    }
    plot_results(tmp_path / "r.png", columns | {"metrics/ap_m": [-1.0, -1.0]})
    plot_results(
        tmp_path / "one.png", {"epoch": [1.0], "train/loss_cls": [1.0], "lr": [float("nan")]}
    )
    assert cv2.imread(str(tmp_path / "r.png")).shape[:2] == (
        352,
        1320,
    )  # three panels: nothing else has a figure
    assert cv2.imread(str(tmp_path / "one.png")).shape[:2] == (352, 440)
    plot_results(tmp_path / "none.png", {"epoch": []})
    assert not (tmp_path / "none.png").exists()
    plot_labels(tmp_path / "l.png", np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(3), NAMES)
    plot_labels(tmp_path / "m.png", np.array([[0, 0, 6, 6.0]]), np.array([1]), np.array([1]), NAMES)
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("r.png", "l.png", "m.png"))


def test_ignored_regions_are_grey_and_named_so() -> None:
    """Label -1 is no class: neither the last one's name nor its colour, and it may be counted."""
    boxes = np.array([[10.0, 10, 40, 40], [60, 60, 90, 90]])
    assert name_of(-1, ("ship", "car")) == "(ignored)" and name_of(1, ("ship", "car")) == "car"
    assert colour_of(-1) == IGNORED and IGNORED not in PALETTE
    image = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_boxes(image, boxes, np.array([0, -1]), ("ship",), show_labels=True)
    assert (drawn == np.array(IGNORED)).all(axis=2).any()


def legend_of(
    monkeypatch: pytest.MonkeyPatch, labels: list[int], names: tuple[str, ...], width: int
) -> list[str]:
    """What the strip below a picture says, from left to right; with a note."""
    written: list[str] = []
    monkeypatch.setattr(
        "rfla.pictures.boxes._write_in_legend", lambda _, text, *__, **___: written.append(text)
    )
    add_legend(np.zeros((10, width, 3), np.uint8), np.array(labels, np.int64), names, "(note)")
    return written


def test_the_legend_of_a_name_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tail stays, and a picture of boxes never says that there are none."""
    long = ("a" * 60 + " car",)
    assert legend_of(monkeypatch, [0], long, 600) == ["aaaaaaaaaaa...aaaaaa car 1", "(note)"]
    assert legend_of(monkeypatch, [0], long, 100) == ["...", "(note)"]
    assert legend_of(monkeypatch, [], long, 600) == ["no boxes", "(note)"]


def test_the_legend_leaves_out_the_rarest_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, names = [-1] * 9 + [2] * 3 + [1] * 5 + [0], ("ship", "car", "bus")
    assert legend_of(monkeypatch, labels, names, 600) == [
        *("car 5", "bus 3", "ship 1", "(ignored) 9"),
        "(note)",
    ]
    assert legend_of(monkeypatch, labels, names, 300) == ["car 5", "bus 3", "...", "(note)"]
