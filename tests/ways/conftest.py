"""The modules beside this file, and the micro detector in the place of FCOS."""

import sys
from pathlib import Path

import pytest

from rfla.models import zoo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for `import drive`
sys.path.insert(0, str(HERE.parent / "engine"))  # for `import micro`


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import micro

    monkeypatch.setitem(zoo.DETECTORS, "fcos", micro.MicroFCOS)
