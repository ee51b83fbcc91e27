"""Settings that a machine decides, and the order in which a run is built."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rfla import RFLA
from rfla.cfg import Config, load_config, load_saved
from rfla.engine import build
from rfla.engine.build import fill_in
from rfla.engine.model_source import load_trained
from rfla.engine.trainer import train

CPU = torch.device("cpu")


def test_a_recipe_is_printed_without_what_was_given() -> None:
    cfg = load_config({"model": "fcos_p2", "data": "d", "recipe": "scratch", "ema": 0.9})
    settled, (line,) = fill_in(cfg, CPU)
    assert line == (
        "recipe=scratch: pretrained=false optimizer=adamw lr0=0.001 weight_decay=0.05 "
        "cos_lr=true head.norm=gn aug.mosaic=1 aug.close_mosaic=0.2 aug.zoom=0"
    )
    assert (settled.lr0, settled.ema, settled.head.norm) == (0.001, 0.9, "gn")


def test_the_steps_of_a_recipe_belong_to_its_length() -> None:
    """36 epochs with steps at 28 and 33; half as many halve them."""
    long = {"model": "faster_rcnn", "data": "d", "recipe": "long"}
    settled, (line,) = fill_in(load_config(long), CPU)
    assert (settled.epochs, settled.lr_steps) == (36, (28, 33))
    assert line == (
        "recipe=long: epochs=36 lr_steps=[28,33] clip_grad=10 rpn.nms_iou=0.8 test.score_thr=0.001"
    )
    assert fill_in(load_config(long | {"epochs": 18}), CPU)[0].lr_steps == (14, 16)
    assert fill_in(load_config(long | {"lr_steps": [20]}), CPU)[0].lr_steps == (20,)


def test_the_demo_on_a_cpu_takes_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cpu_has_bfloat16", lambda: False)
    given = {"model": "fcos_p2", "data": "demo", "batch": 3}
    settled, (line,) = fill_in(load_config(given), CPU)
    assert line.startswith("data=demo on a CPU takes recipe=demo: backbone.name=resnet18")
    assert (settled.recipe, settled.head.width, settled.batch) == ("demo", 64, 3)
    assert settled.lr_steps == (3, 4)  # (8, 11) of 12 epochs, for 4
    # A recipe that was given is not replaced, nor is anything on a GPU.
    assert fill_in(load_config(given | {"recipe": "paper"}), CPU)[0].head.width == 256
    assert fill_in(load_config(given), torch.device("cuda"))[0].head.width == 256


def test_what_the_architecture_does_not_read_is_said() -> None:
    """Of a recipe only what the network reads is shown; a key that was given for nothing is named.

    `recipe=best` is of dense models: of its losses Faster R-CNN reads none.
    """
    given = {"model": "faster_rcnn", "data": "d", "recipe": "best", "loss.box": "giou"}
    unused, line = fill_in(load_config(given), CPU)[1]
    assert unused == "not used by training: loss.box"
    assert line == (
        "recipe=best: pretrained=false batch=4 optimizer=adamw lr0=0.001 weight_decay=0.05 "
        "cos_lr=true ema=0.998 test.score_thr=0.02"
    )


def test_keys_of_other_verbs_are_named() -> None:
    cfg = load_config({"model": "fcos_p2", "data": "d", "save_txt": True, "classes": ["a"]})
    assert fill_in(cfg, CPU)[1] == ["not used by training: classes, save_txt"]


def test_compilation_comes_after_the_check_of_the_precision(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled before, the parts would see two sizes of images and be compiled for any size."""
    order: list[str] = []
    monkeypatch.setattr(build, "autocast_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(build, "precision_holds", lambda *_: order.append("check") or True)
    monkeypatch.setattr("rfla.engine.build.compile_parts", lambda _: order.append("compile"))
    train(config(epochs=1, val=False, compile=True))
    assert order == ["check", "compile"]


def test_images_of_16_bits_are_read_alike_ever_after(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of up to 255 x 40 and one of 255 x 60 = 15,300: 14 bits, in training, val and predict.

    A range that was given stands.
    """
    images = sorted(Path(str(config().data)).glob("images/*.png"))
    for path, factor in zip(images, [40, 40, 40, 60, 40, 40], strict=True):
        values = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * factor
        values[0, 0] = 255 * factor
        cv2.imwrite(str(path), values)
    result = train(config(epochs=1))
    text = capsys.readouterr().out
    line = "6 16-bit images looked at: the highest value is 15,300, so 0 to 16,383 become 0 to 255"
    assert text.count(line) == 1
    assert "read as" not in text and "dark" not in text  # no image is judged by itself any more
    weights = result.run_dir / "weights" / "last.safetensors"
    assert load_trained(weights).config.normalize.range_16 == (0, 16_383)
    assert load_saved(result.run_dir / "args.yaml").normalize.range_16 == (0, 16_383)
    model = RFLA(weights)
    (found,) = model.predict(images[0], save=False, verbose=False)
    assert found.orig_img[0, 0, 0] == 255 * 40 >> 6
    assert model.val(data=config().data, plots=False).ap == pytest.approx(result.metrics.ap)
    for path in images:  # darker ones, of another camera
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) // 8)
    tuned = train(config(epochs=1, model=str(weights)))
    assert load_saved(tuned.run_dir / "args.yaml").normalize.range_16 == (0, 2047)
    for key, limits in (("range", [0, 20_000]), ("range_16", [0, 9000])):
        given = train(config(epochs=1, **{f"normalize.{key}": limits}))
        section = load_trained(given.run_dir / "weights" / "last.safetensors").config.normalize
        assert list(getattr(section, key)) == limits
        assert section.range_16 == (tuple(limits) if key == "range_16" else None)
