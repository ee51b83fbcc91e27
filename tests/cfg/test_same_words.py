"""A mistake is answered in the same words in Python and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from rfla import RFLA
from rfla.cli import main
from rfla.errors import RflaError
from rfla.models import build_detector
from rfla.models.weights import build_from_metadata

MISTAKES = {
    "assigner.distance=kdl": "assigner.distance=kdl: must be one of kld, exp_kld, kld_10, wd, nwd",
    "assigner.tpok=[3,1]": "unknown key 'assigner.tpok'; did you mean assigner.topk (default [3",
    "qqqq=3": "unknown key 'qqqq'; all keys: rfla cfg",
    "asigner=3": "unknown key 'asigner'; did you mean 'assigner', as in assigner.name=rfla?",
    "topk=[3,1]": "unknown key 'topk'; did you mean assigner.topk (default [3,1])?",
    "backbone=resnet19": "backbone.name=resnet19: must be a name of a network",
    "assigner.topk=[0,1]": "assigner.topk=[0,1]: two whole numbers from 1 to 1000 are needed",
    "neck.width=4": "neck.width=4: must be a whole number from 8 to 2048 (default 256)",
    "neck.width=true": "neck.width=true: a number is needed here, not true or false (default 256)",
    "head=3": "head=3: head is a section; set its keys, for example head.width=256",
    "roi.pos_iou=[0.5,0.6]": "roi.pos_iou, roi.stage_weights and roi.stds need one value for each",
}


def said(action: Any) -> str:
    with pytest.raises(RflaError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("typed", MISTAKES)
def test_same_words_everywhere(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, text = typed.split("=")
    value = text if text.startswith(("kdl", "resnet")) else json.loads(text)
    assert main(["train", "model=fcos_p2", "data=demo", typed]) == 2
    line = capsys.readouterr().err.removeprefix("error: ").rstrip()
    assert line.startswith(MISTAKES[typed])
    assert said(lambda: build_detector("fcos_p2", settings={key: value})) == line
    assert said(lambda: RFLA("fcos_p2").train(data="demo", **{key: value})) == line


def test_a_weights_file_is_answered_so_too() -> None:
    metadata = {"model": {"backbone": {"name": "resnet19"}}, "names": ["ship"]}
    assert said(lambda: build_from_metadata(metadata)).startswith(
        "model in the weights file: backbone.name=resnet19: must be a name of a network"
    )


def test_a_model_yaml_is_answered_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("detector: fcos\nassigners:\n  baseline: {los: {box: giou}}\n")
    line = f"{path}:3: unknown key 'los'; did you mean 'loss', as in loss.box=diou?"
    assert said(lambda: build_detector(str(path), assigner="baseline")).startswith(line)
    assert said(lambda: RFLA(str(path)).train(data="demo", assigner="baseline")).startswith(line)


def test_a_setting_of_a_run_is_none_of_a_model() -> None:
    line = said(lambda: build_detector("fcos", settings={"epochs": 3}))
    assert line == "epochs is a setting of a run, not of a model"
