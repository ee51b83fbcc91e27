"""Images found by the names that annotation files use."""

from pathlib import Path

import numpy as np

from rfla.data.formats.images import ImageFinder


def test_an_image_is_found_by_either_of_its_names(tmp_path: Path) -> None:
    """An index has both as arrays."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    names, others = np.array(["a", "x.png", "c.png"]), np.array(["", "b.png", ""])
    found, otherwise = ImageFinder([tmp_path]).paths(names.tolist(), others)
    assert found == [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    assert otherwise == [f"x.png is {tmp_path / 'b.png'}"]
