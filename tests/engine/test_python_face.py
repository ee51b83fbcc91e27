"""The Python face over a whole life: train, validate, predict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfla import RFLA
from rfla.errors import ConfigError


def test_the_python_face(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    model = RFLA("fcos_p2")
    assert (repr(model), model.names) == ("RFLA('fcos_p2')", ())
    with pytest.raises(ConfigError, match="fcos_p2 is not trained yet"):
        model.predict(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'fcos_p2'"):
        RFLA("fcos_p22")
    with pytest.raises(ConfigError, match="model is an empty string"):
        RFLA("")
    given = {key: value for key, value in settings(epochs=1).items() if key != "model"}
    metrics = model.train(**given)
    assert metrics is not None and model.model.endswith("best.safetensors")
    assert model.names == ("ship", "car")
    again = model.val(
        data=given["data"], project=given["project"], device="cpu", workers=0, plots=False
    )
    assert again.figures == pytest.approx(metrics.figures, abs=1e-6)
    for misuse in (
        lambda: model.predict(np.zeros((9, 9, 3), np.uint8), model="fcos_p2"),
        lambda: model.val(model="fcos_p2"),
        lambda: model.export(model="fcos_p2"),
    ):
        with pytest.raises(ConfigError, match=r"for another one make RFLA\('fcos_p2'\)"):
            misuse()
    with pytest.raises(ConfigError, match=r"hooks=\[\]: must be one rfla.engine.hooks.Hooks"):
        RFLA("fcos_p2").train(hooks=[], **given)  # type: ignore[arg-type]
    # resumed by an object that knows another model, or none
    RFLA().train(resume=str(Path(model.model).parents[1]), epochs=2)
    results = model(np.zeros((50, 60, 3), np.uint8), conf=0.0, max_det=3, device="cpu")
    assert len(results) == 1 and len(results[0]) <= 3 and results[0].names == ("ship", "car")
    assert set(results[0].speed) == {"preprocess", "inference", "postprocess"}
