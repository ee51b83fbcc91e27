"""CVAT's XML: shapes, frames, subsets, and what is refused with its line."""

from pathlib import Path

import numpy as np
import pytest

from rfla.data.formats import cvat
from rfla.data.record import Part
from rfla.errors import DataError

META = """<meta><task><labels>
<label><name>ship</name><attributes><attribute><name>hue</name></attribute></attributes></label>
<label><name>car</name></label></labels>
<original_size><width>640</width><height>480</height></original_size></task></meta>"""
BOX = 'xtl="1" ytl="2" xbr="6" ybr="8"'


def store(tmp_path: Path, body: str, strict: bool = True, split: str = ""):
    path = tmp_path / "annotations.xml"
    path.write_text(f"<annotations>{body}</annotations>")
    return cvat.read(Part((path,), (), split), None, strict=strict)


def test_each_outline_becomes_the_box_round_it(tmp_path: Path) -> None:
    found = store(
        tmp_path,
        META
        + f"""<image id="3" name="s/a.png" width="64" height="48">
        <box label="car" occluded="1" {BOX}/>
        <box label="car" rotation="90" xtl="10" ytl="10" xbr="30" ybr="20"/>
        <polygon label="ship" points="5,5;9,4.5;7,12"/>
        <ellipse label="ship" cx="20" cy="20" rx="6" ry="2"/>
        <ellipse label="ship" cx="20" cy="20" rx="6" ry="2" rotation="90"/>
        <mask label="plane" left="3" top="4" width="5" height="6" rle="0,30"/>
        <points label="car" points="1,1"/><polyline label="car" points="1,1;2,2"/>
        <tag label="car"/></image><image name="b.png" width="9" height="8"/>""",
    )
    wanted = [
        [1, 2, 6, 8],
        [15, 5, 25, 25],
        [5, 4.5, 9, 12],
        [14, 18, 26, 22],
        [18, 14, 22, 26],
        [3, 4, 8, 10],
    ]
    np.testing.assert_allclose(found.boxes, wanted, atol=1e-9)
    assert found.names == ("ship", "car", "plane")
    assert found.labels.tolist() == [1, 1, 0, 0, 0, 2]
    assert found.attributes["occlusion"].tolist() == [1, 0, 0, 0, 0, 0]
    assert found.paths.tolist() == ["s/a.png", "b.png"]
    assert found.image_hw.tolist() == [[48, 64], [8, 9]]
    assert found.dropped == {cvat.NOT_READ: 2}
    assert found.examples[cvat.NOT_READ].endswith("annotations.xml:11")


def test_a_frame_lacks_what_is_outside_it(tmp_path: Path) -> None:
    found = store(
        tmp_path,
        META
        + f"""<track id="0" label="car"><box frame="10" outside="0" {BOX}/>
        <box frame="9" outside="1" {BOX}/></track>
        <track label="ship"><polygon frame="10" outside="0" points="0,0;4,0;4,4"/></track>""",
    )
    assert found.paths.tolist() == ["frame_000009", "frame_000010"]
    assert found.box_start.tolist() == [0, 0, 2]
    assert found.boxes.tolist() == [[1, 2, 6, 8], [0, 0, 4, 4]]
    assert found.image_hw.tolist() == [[480, 640]] * 2


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    shape = f'<box label="car" {BOX}/>'
    body = f"""<image name="a.png" subset="Train">{shape}</image>
    <image name="b.png" subset="Validation">{shape}</image><image name="c.png" subset="mine"/>"""
    (tmp_path / "images" / "Validation").mkdir(parents=True)
    store(tmp_path, body)
    parts = cvat.find(tmp_path)
    assert list(parts) == ["train", "val"]
    assert parts["val"].images[0] == tmp_path / "images" / "Validation"
    names = {split: cvat.read(part, None).paths.tolist() for split, part in parts.items()}
    assert names == {"train": ["a.png", "c.png"], "val": ["b.png"]}


def test_several_files_are_splits_or_jobs_of_one(tmp_path: Path) -> None:
    for name in ("job_1.xml", "job_2.xml", "val.xml"):
        text = f'<annotations><image name="{name}.png"/></annotations>'
        (tmp_path / name).write_text(text)
    parts = cvat.find(tmp_path)
    assert {split: len(part.annotations) for split, part in parts.items()} == {"train": 2, "val": 1}
    assert len(cvat.read(parts["train"], None)) == 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<box label="car" xtl="1" ytl="2" xbr="6"/>', "2: this shape has no ybr"),
        (f'<box label="car" {BOX.replace("6", "six")}/>', "2: 'six' is not a number"),
        (f"<box {BOX}/>", "2: no class name"),
        ('<polygon label="car" points="1,2;3"/>', "2: points must be 'x,y;x,y;x,y;...', not"),
        ('<mask label="car" left="1"/>', "2: this shape has no top"),
        (f'<box label="car" rotation="inf" {BOX}/>', "2: 'inf' is not a finite number"),
    ],
)
def test_a_malformed_shape_is_refused_or_counted(tmp_path: Path, shape: str, message: str) -> None:
    body = f'<image name="a.png" width="9" height="9">\n{shape}<box label="car" {BOX}/></image>'
    with pytest.raises(DataError) as caught:
        store(tmp_path, body)
    assert f"annotations.xml:{message}" in str(caught.value)
    found = store(tmp_path, body, strict=False)
    assert len(found.boxes) == 1 and sum(found.counts.values()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation/>", "1: not a file of CVAT (its root is <annotation>, not <annotations>)"),
        ("<annotations><image", "1: not valid XML"),
        ("<annotations><image/></annotations>", "1: this image has no name"),
        ('<!DOCTYPE z [<!ENTITY a "x">]><annotations/>', " declares an XML entity; refused"),
        ('<annotations><track><box frame="-"/></track></annotations>', "1: '-' is not a number"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError) as caught:
        cvat.read(Part((tmp_path / "a.xml",), ()), None)
    assert f"a.xml:{message}" in str(caught.value)
