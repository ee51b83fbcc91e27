"""Data sets by name, path and directory; the Ultralytics and the COCO form; what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rfla.data import load_index
from rfla.data.images import write_image
from rfla.data.spec import known_datasets, load_data_spec
from rfla.errors import DataError


def write(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_built_in_yaml_is_read():
    assert "demo" in known_datasets()
    for name in known_datasets():
        spec = load_data_spec(name)
        assert spec.name == name and spec.names and "train" in spec.splits


def test_ultralytics_form(tmp_path: Path):
    (tmp_path / "images/train").mkdir(parents=True)
    path = write(
        tmp_path,
        "path: .\ntrain: images/train\nval: [images/train, more.txt]\n"
        "names:\n  0: a\n  1: b\nroboflow: {x: 1}\n",
    )
    spec = load_data_spec(path)
    assert spec.names == ("a", "b") and set(spec.splits) == {"train", "val"}
    assert (
        spec.splits["train"].images == (tmp_path / "images/train",)
        and spec.splits["train"].annotations is None
    )
    assert len(spec.splits["val"].images) == 2


def test_keys_of_other_tasks_are_no_splits(tmp_path: Path):
    spec = load_data_spec(
        write(
            tmp_path,
            "train: images\nnames: [a]\nkpt_shape: [4, 2]\nflip_idx: [1, 0]\n"
            "colors: [red]\nversion: 8\n",
        )
    )
    assert set(spec.splits) == {"train"}


@pytest.mark.parametrize(
    "entry",
    [
        "train: {images: pictures, annotations: a/train.json}",
        "train: a/train.json\nimages: pictures",
        "train: pictures\ntrain_json: a/train.json",
    ],
)
def test_three_ways_to_name_a_coco_file(tmp_path: Path, entry: str):
    spec = load_data_spec(write(tmp_path, entry + "\nnames: [a]\n"))
    assert spec.splits["train"].annotations == tmp_path / "a/train.json"
    assert spec.splits["train"].images == (tmp_path / "pictures",)


def test_a_directory_with_images_and_annotations(coco):
    root = coco([[(1, 2, 3, 4, 3)]])
    coco([[(1, 2, 3, 4, 3)]], split="val")
    assert set(load_data_spec(root).splits) == {"train", "val"}


def test_joined_splits(coco):
    root = coco([[]])
    coco([[]], split="val")
    spec = load_data_spec(root)
    assert spec.parts("trainval") == ("train", "val") == spec.parts("train+val")
    with pytest.raises(DataError, match=r"no split 'vall'.*did you mean 'val'"):
        spec.parts("vall")


def test_roots_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "second/things").mkdir(parents=True)
    monkeypatch.setenv("RFLA_DATASETS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    (tmp_path / "yamls").mkdir()
    path = write(tmp_path / "yamls", "path: things\ntrain: images\nnames: [a]\n")
    assert load_data_spec(path).root == tmp_path / "second/things"


def test_a_data_set_in_the_search_path_by_bare_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, "train: images\nnames: [a]\n", "harbour.yaml")
    monkeypatch.setenv("RFLA_DATASETS", str(tmp_path))
    assert load_data_spec("harbour").name == "harbour"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold 'key: value' lines"),
        ("train: x\n  bad: {y", "not valid YAML"),
        ("names: [a]", "no split"),
        ("train: x\nnames: [a, a]", "named twice"),
        ("train: x\nnames: {0: a, 2: b}", "numbered 0 to 1"),
        ("train: x\nnames: [a]\nnc: 2", "nc is 2 but 1 names"),
        ("train: 3\nnames: [a]", r"train must be a directory, a list of them, or \{.*, not 3"),
        ("train: x\nnmaes: [a]", "unknown key 'nmaes'.*did you mean 'names'"),
        ("train: {images: x}\nnames: [a]", "train must be a directory.*not {'images': 'x'}"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        load_data_spec(write(tmp_path, text))


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="did you mean 'demo'"):
        load_data_spec("dmo")


def test_an_empty_directory(tmp_path: Path):
    with pytest.raises(DataError, match=r"neither data\.yaml nor images/"):
        load_data_spec(tmp_path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=4)
    | st.just("images/train"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "annotations", "0"]), inner)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        "path",
        "train",
        "val",
        "names",
        "nc",
        "splits",
        "images",
        "train_json",
        "settings",
        "sizes",
        "obtain",
    ]
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=5))
def test_a_data_yaml_never_crashes(tmp_path: Path, content: dict):
    path = write(tmp_path, yaml.safe_dump({"train": "images/train", "names": ["a"]} | content))
    try:
        spec = load_data_spec(path)
        for split in spec.splits:
            load_index(spec, split)
    except DataError as error:
        assert str(error)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b", "\ud800", "~nobody42/x"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str):
    for make in (lambda: load_data_spec(name), lambda: load_data_spec(tmp_path / name)):
        with pytest.raises(DataError) as error:
            make()
        assert "\n" not in str(error.value)
    quoted = json.dumps(name)
    for key in ("path", "train", "images"):
        rest = "" if key == "train" else "\ntrain: train.json"
        path = write(tmp_path, f"{key}: {quoted}{rest}\nnames: [a]\n")
        with pytest.raises(DataError) as error:
            load_index(load_data_spec(path), "train")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["../../..", "/tmp/victim", "~"])
@pytest.mark.parametrize("generator", ["demo", "other", "[demo]"])
def test_no_data_yaml_has_a_set_painted(tmp_path: Path, place: str, generator: str) -> None:
    """Only `data=demo` paints, and only into the data directories."""
    path = tmp_path / "a" / "b" / "data.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"generator: {generator}\npath: {place}\ntrain: images\nval: images\n")
    with pytest.raises(DataError, match="generator cannot be set by a data YAML"):
        load_data_spec(path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["data.yaml"]


@pytest.mark.parametrize("key", ["project", "resume", "batch", "model", "cache", "epochs"])
def test_settings_of_a_run_are_no_splits(tmp_path: Path, key: str) -> None:
    """Any other name may be that of a split, so that these would be passed over in silence."""
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\nval: images\nnames: [a]\n{key}: /victim\n")
    with pytest.raises(DataError, match=f"data.yaml: {key} cannot be set by a data YAML"):
        load_data_spec(path)


@pytest.mark.parametrize("word", ["validation", "valid"])
def test_other_words_for_val(word: str, tmp_path: Path) -> None:
    for split in ("train", "other"):
        picture = tmp_path / "images" / split / "a.png"
        picture.parent.mkdir(parents=True)
        write_image(picture, np.zeros((8, 8, 3), np.uint8))
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images/train\n{word}: images/other\nnames: [ship]\n")
    assert list(load_data_spec(path).splits) == ["train", "val"]
