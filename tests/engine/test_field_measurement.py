"""Measured receptive fields in a training: once, again every few epochs, in its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rfla.cfg import Config, load_config
from rfla.engine.checkpoint import load_state
from rfla.engine.hooks import Hooks
from rfla.engine.model_source import load_trained
from rfla.engine.run_dir import state_path
from rfla.engine.trainer import train
from rfla.errors import ConfigError
from rfla.models.detector_fields import sides_of

Configure = Callable[..., Config]
MEASURED = {"assigner.fields": "measured"}
AUTHORS = [35, 91, 267, 427, 555]


class Seen(Hooks):
    """Notes the sides of both networks at each batch."""

    def __init__(self) -> None:
        self.sides: list[list[float]] = []

    def batch_end(self, run: Any, losses: Any) -> None:
        self.sides.append(sides_of(run.state.net))
        assert sides_of(run.state.evaluated_net) == self.sides[-1]


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["rfla"])


def test_measured_once_and_kept(config: Configure) -> None:
    seen = Seen()
    result = train(config(epochs=2, ema=0.9, **MEASURED), seen)
    first = seen.sides[0]
    assert len(first) == 5 and first != AUTHORS and all(0 < side < 400 for side in first)
    assert all(sides == first for sides in seen.sides)

    # a file of weights explains itself: numbers, not a word
    saved = header(result.last)["model"]["assigner"]
    assert saved["fields"] == first and saved["refresh_fields"] == 0
    assert sides_of(load_trained(result.last).net) == first
    assert load_state(state_path(result.run_dir))[1]["fields"] == first
    assert "fields: measured" in (result.run_dir / "args.yaml").read_text()

    # what it learnt from is what a fine-tuning goes on with
    more = Seen()
    train(config(epochs=1, model=str(result.last), name="more"), more)
    assert more.sides[0] == first


def test_the_authors_numbers_are_the_default(config: Configure) -> None:
    seen = Seen()
    result = train(config(epochs=1), seen)
    assert seen.sides[0] == AUTHORS
    assert header(result.last)["model"]["assigner"]["fields"] == "authors"


@pytest.mark.parametrize("keep_average", [0.0, 0.9])
def test_measured_again_and_resumed(config: Configure, keep_average: float) -> None:
    """A run that was stopped after its first epoch ends as one that was not."""
    again = MEASURED | {"assigner.refresh_fields": 1, "ema": keep_average}
    seen = Seen()
    whole = train(config(epochs=3, name="whole", **again), seen)
    batches = len(seen.sides) // 3
    epochs = [seen.sides[batches * epoch : batches * (epoch + 1)] for epoch in range(3)]
    assert all(sides == epoch[0] for epoch in epochs for sides in epoch)
    assert epochs[0][0] != epochs[1][0] != epochs[2][0]

    class StopsInTheSecond(Hooks):
        def batch_end(self, run: Any, losses: Any) -> None:
            if run.epoch == 1:
                run.stop()

    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=3, name="broken", **again), StopsInTheSecond())
    broken = whole.run_dir.parent / "broken"
    rest = Seen()
    resumed = train(load_config({"resume": str(broken)}, mode="train"), rest)
    assert rest.sides == seen.sides[-len(rest.sides) :]
    once, twice = load_file(whole.last), load_file(resumed.last)
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert header(whole.last)["model"] == header(resumed.last)["model"]


@pytest.mark.parametrize(
    "keys",
    [
        {"assigner.refresh_fields": 2},
        {"assigner.refresh_fields": 2, "assigner.name": "atss", "assigner.fields": "measured"},
    ],
)
def test_nothing_to_refresh(config: Configure, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"refresh_fields=2 measures .* again: it needs"):
        train(config(**keys))


def test_a_wrong_number_of_sides(config: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^assigner.fields=\[9,18\]: one side for each of the 5"):
        train(config(**{"assigner.fields": [9, 18], "project": str(tmp_path / "none")}))
    assert not (tmp_path / "none").exists()
