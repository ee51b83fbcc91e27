"""Objects that resizing makes too small are counted, and a size or tiles that keep them advised."""

import numpy as np
import pytest

from rfla.data import load_data_spec, load_index
from rfla.data.object_sizes import shrunk_objects, trained_scale
from rfla.errors import DataError


def index_of(coco, sides: list[int], size: tuple[int, int]):
    """One image of `size` (height, width) px with squares of these sides in a row."""
    boxes = [(number * 20, 5, side, side, 3) for number, side in enumerate(sides)]
    return load_index(load_data_spec(coco([boxes], size=size)), "train", for_training=True)


def test_nothing_is_said_where_nothing_is_lost(coco):
    index = index_of(coco, [3, 8, 16], (100, 200))
    assert shrunk_objects(index, 200) is None
    assert shrunk_objects(index, 400) is None
    assert shrunk_objects(index, 100) is None  # 8 px become 4; 3 px were under 4 before


def test_lost_objects_are_counted_and_the_size_that_keeps_them_is_advised(coco):
    index = index_of(coco, [3, 8, 9, 16], (100, 200))
    found = shrunk_objects(index, 64)
    assert found is not None
    # At 0.32 of their size 8, 9 and 16 px are 2.56, 2.88 and 5.12 px.
    assert (found.objects, found.lost, found.scale) == (4, 2, 0.32)
    assert found.enough == 128  # 8 px are 4 px at an input of 100 px, the next multiple of 32
    assert found.line() == (
        "2 of 4 objects shrink below 4 px at imgsz=64 (their images to 0.32 of the size): "
        "imgsz=128 prevents this, and so do tiles (rfla convert format=... tile=64)"
    )
    assert shrunk_objects(index, found.enough) is None


def test_one_of_many_is_kept_by_a_larger_size(coco):
    """99.5 % of the objects are kept at 192 px already; 5 px are 4 px at 640 px."""
    boxes = [(0, 5, 5, 5, 3)] + [
        (number % 40 * 19, 20 + number // 40 * 20, 17, 17, 3) for number in range(199)
    ]
    index = load_index(load_data_spec(coco([boxes], size=(200, 800))), "train")
    found = shrunk_objects(index, 192)
    assert found is not None and (found.lost, found.enough) == (1, 640)


def test_scenes_are_to_be_cut_into_tiles(coco):
    index = index_of(coco, [5, 5, 5], (400, 6000))
    found = shrunk_objects(index, 256)
    assert found is not None and found.lost == 3
    assert found.line().endswith(": cut tiles (rfla convert format=... tile=256)")


def test_regions_and_crowds_are_no_objects(coco):
    boxes = [(0, 5, 8, 8, 3, {"iscrowd": 1}), (20, 5, 8, 8, 3, {"ignore": 1})]
    index = load_index(load_data_spec(coco([boxes], size=(100, 200))), "train")
    assert shrunk_objects(index, 64) is None and np.all(index.image_hw == (100, 200))


def test_a_stated_size_is_never_allocated(coco):
    """50,000 x 50,000 px stated for a picture of 64 x 64: it can be read, but not drawn on."""
    root = coco([[(5, 5, 9, 9, 3)]], size=(64, 64))
    path = root / "annotations/train.json"
    path.write_text(path.read_text().replace(": 64", ": 50000"))
    index = load_index(load_data_spec(root), "train")
    assert index.read_image(0).shape == (64, 64, 3)
    with pytest.raises(DataError, match="annotations state 50000 x 50000 px"):
        index.picture(0)


def test_what_a_network_learnt_in_px_of_its_input(coco):
    """Squares of 8 and 16 px in an image of 200 px, shown at 100 px: 4 and 8 px of 0.6 m."""
    scale = trained_scale(index_of(coco, [8] * 5 + [16], (100, 200)), 100, gsd=0.3)
    assert scale is not None
    assert (scale.px_max, scale.gsd) == (8.0, 0.6)
    assert scale.px_99 == pytest.approx(7.8)
    assert trained_scale(index_of(coco, [8], (100, 200)), 200).gsd is None
    assert trained_scale(index_of(coco, [], (100, 200)), 200) is None
