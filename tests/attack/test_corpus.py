"""Everything that attacks have found stays mended."""

from pathlib import Path

import micro
import pytest
from corpus import CORPUS
from harness import attack

from rfla.models import zoo


@pytest.mark.slow
def test_what_was_found_stays_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo.DETECTORS, "fcos", micro.MicroFCOS)
    names = list(CORPUS)
    found = attack("corpus", lambda number: CORPUS[names[number]], len(names), tmp_path)
    assert [(names[finding.number], finding.kind, finding.text) for finding in found] == []
