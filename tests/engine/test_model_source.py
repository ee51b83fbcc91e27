"""Networks from weights files: fine-tuning on other classes, and matching classes by name."""

from pathlib import Path

import pytest
import torch

from rfla.cfg import load_config, model_part
from rfla.engine.model_source import (
    _map_classes,
    apply_mapping,
    class_mapping,
    fine_tune,
    freeze,
    load_trained,
    random_start_advice,
    source_model,
    training_mode,
    weights_metadata,
)
from rfla.errors import ConfigError, DataError, WeightsError
from rfla.models import build_from_config
from rfla.models.weights import save_weights
from rfla.models.zoo import MAX_CLASSES

SMALL = {
    "model": "fcos_p2",
    "backbone.name": "resnet18",
    "neck.width": 16,
    "head.width": 16,
    "head.depth": 1,
}


def save(path: Path, names: list[str], **changes: object) -> dict[str, torch.Tensor]:
    config = model_part(load_config(SMALL | changes))
    torch.manual_seed(3)
    net = build_from_config(config, len(names))
    save_weights(path, net.state_dict(), weights_metadata(config, names, 96, {"ap": 0.5}, {}))
    return dict(net.state_dict())


def test_a_weights_file_is_enough(tmp_path: Path) -> None:
    state = save(tmp_path / "x.safetensors", ["ship", "car"])
    model = load_trained(tmp_path / "x.safetensors")
    assert (model.names, model.imgsz, model.net.training) == (("ship", "car"), 96, False)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.net.state_dict().items())


def test_a_name_in_capitals_is_a_weights_file_too(tmp_path: Path) -> None:
    state = save(tmp_path / "X.SAFETENSORS", ["ship", "car"])
    model = str(tmp_path / "X.SAFETENSORS")
    assert load_trained(model).names == ("ship", "car")
    cfg = load_config({"model": model, "data": "demo", "pretrained": False}, mode="train")
    source = source_model(cfg, ["ship", "car"])
    assert not source.at_random
    assert all(torch.equal(tensor, state[key]) for key, tensor in source.net.state_dict().items())


def test_as_many_classes_as_a_model_can_have(tmp_path: Path) -> None:
    names = [str(number) for number in range(MAX_CLASSES)]
    save(tmp_path / "x.safetensors", ["7", "3"])
    config = model_part(load_config(SMALL))
    notes = fine_tune(tmp_path / "x.safetensors", config, names).notes
    assert any(note.endswith(": 3, 7") for note in notes)


def test_classes_are_mapped_by_name(tmp_path: Path) -> None:
    """Old classes car, ship.

    New ones ship, bus, car: row 0 is the old 1, row 2 the old 0, row 1 starts at random.
    """
    path = tmp_path / "x.safetensors"
    old = save(path, ["car", "ship"])
    model = fine_tune(path, model_part(load_config(SMALL)), ["ship", "bus", "car"])
    new = model.net.state_dict()
    changed = [key for key in new if new[key].shape != old[key].shape]
    assert changed
    for key in changed:
        assert torch.equal(new[key][0], old[key][1])
        assert torch.equal(new[key][2], old[key][0])
    assert all(torch.equal(new[key], old[key]) for key in new if key not in changed)
    notes = "\n".join(model.notes)
    assert f"{len(new) - len(changed)} of {len(new)} tensors kept" in notes
    assert "classes mapped by name" in notes and notes.endswith("ship, car")
    assert "started at random" not in notes


@pytest.mark.parametrize(
    ("model", "ratios"),
    [
        ("retinanet", [0.5, 1, 2]),
        ("retinanet", [0.5, 1, 2, 3]),  # four anchors are not the four numbers of a box
        ("faster_rcnn", [0.5, 1, 2]),
        ("autoassign", [1]),
    ],
)
def test_blocks_of_classes(model: str, ratios: list[float]) -> None:
    """Anchors x classes, classes with a background row, 4 numbers a class: all follow the names."""
    settings = {"model": model, "backbone.name": "resnet18", "anchors.ratios": ratios}
    config = model_part(load_config(settings))
    with torch.device("meta"):
        sizes = [build_from_config(config, count).state_dict() for count in (2, 3, 4)]
    checked = 0
    for key, new in sizes[1].items():
        old, grown = sizes[0][key], sizes[2][key]
        if old.shape == new.shape:
            assert grown.shape == new.shape
            continue
        rows = grown.shape[0] - new.shape[0]
        source = (
            torch.arange(float(old.shape[0]))
            .reshape(-1, *[1] * (old.ndim - 1))
            .expand(old.shape)
            .clone()
        )
        target = torch.full(new.shape, -1.0)
        names = (["car", "ship"], ["ship", "bus", "car"])
        assert _map_classes(key, target, source, grown, *names)
        column = target.reshape(len(target), -1)[:, 0].tolist()
        background = new.shape[0] - 3 * rows
        if "fc_reg" in key:
            expected = [4, 5, 6, 7, -1, -1, -1, -1, 0, 1, 2, 3]
        else:
            expected = [value for block in range(rows) for value in (2 * block + 1, -1, 2 * block)]
        assert column == expected + [float(old.shape[0] - 1)] * background, key
        checked += 1
    assert checked >= 2


def test_the_same_number_of_other_classes_is_not_taken_for_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    old = save(path, ["car", "ship"])
    new = fine_tune(path, model_part(load_config(SMALL)), ["ship", "car"]).net.state_dict()
    swapped = [key for key in new if not torch.equal(new[key], old[key])]
    assert swapped and all(torch.equal(new[key].flip(0), old[key]) for key in swapped)


def test_what_does_not_fit_starts_anew_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save(path, ["car"], **{"head.width": 24})
    notes = fine_tune(path, model_part(load_config(SMALL)), ["car"]).notes
    assert any(note.startswith("started at random: head.") for note in notes)


def test_not_one_class_in_common() -> None:
    with pytest.raises(
        DataError, match="no class in common: the model has ship; the data has bus, car"
    ):
        class_mapping(["ship"], ["bus", "car"])
    assert class_mapping(["ship", "car"], ["car", "bus"]) == [-1, 0]
    assert apply_mapping(torch.tensor([1, 0, 1]), [-1, 0]).tolist() == [0, -1, 0]


def test_a_file_that_does_not_fit_the_settings_given_now(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", ["car"])
    with pytest.raises(WeightsError, match="does not fit the model"):
        load_trained(
            tmp_path / "x.safetensors", model_part(load_config(SMALL | {"head.width": 24}))
        )


def test_freeze_by_name() -> None:
    net = build_from_config(model_part(load_config(SMALL)), 1)
    freeze(net, ["backbone", "neck"])
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == {"head"}
    training_mode(net, ["backbone"])
    assert net.training and not net.backbone.bn1.training  # its statistics stay too
    with pytest.raises(
        ConfigError,
        match=r"freeze=spine: no parameter name starts with that; the model's parts are backbone",
    ):
        freeze(net, ["spine"])


def test_advice_for_random_weights() -> None:
    (line,) = random_start_advice(load_config({"model": "fcos_p2", "data": "d"}))
    assert line.endswith("recipe=scratch learns far more in a short one")
    # Nobody is advised against what they chose.
    for chosen in ({"optimizer": "sgd"}, {"optimizer": "adamw"}, {"recipe": "paper"}):
        assert random_start_advice(load_config({"model": "fcos_p2", "data": "d"} | chosen)) == ()
