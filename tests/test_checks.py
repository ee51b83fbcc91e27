"""`rfla checks` warns of versions that a hostile file can harm, and does not fail for them."""

from importlib import metadata

import pytest

from rfla import checks
from rfla.models.checkpoint_file import SAFE_TORCH


@pytest.mark.parametrize(
    ("torch", "pillow", "warned"),
    [
        ("2.14.1+cu130", "13.0.0", {}),
        ("2.10.0", "12.3.0", {}),
        ("2.9.1", "12.3", {"torch": "2.9.1 has CVE-2026-24747"}),
        ("2.10", "12.2.1", {"pillow": "12.2.1 has CVE-2026-4775"}),
        (
            "2.6.0+cpu",
            "9.5",
            {"torch": "pip install -U 'torch>=2.10'", "pillow": "pip install -U 'pillow>=12.3'"},
        ),
    ],
)
def test_known_faults(
    monkeypatch: pytest.MonkeyPatch, torch: str, pillow: str, warned: dict[str, str]
) -> None:
    real = metadata.version
    given = {"torch": torch, "pillow": pillow}
    monkeypatch.setattr(metadata, "version", lambda name: given.get(name.lower()) or real(name))
    report = checks.Report()
    checks._known_faults(report)
    assert {name for name, _, _ in report.lines} == warned.keys()
    for name, found, _ in report.lines:
        assert warned[name] in found
        assert f"warn  {name}" in report.text()
    assert report.good


def test_the_import_refuses_what_the_checks_warn_of() -> None:
    assert checks.KNOWN_FAULTS["torch"][0] == SAFE_TORCH


def test_a_package_of_several_extras_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["absent>=1; extra == 'dev'", "absent>=1; extra == 'geo'", "numpy>=1"]
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    report = checks.Report()
    checks._packages(report)
    assert [name for name, _, _ in report.lines] == ["absent", "numpy"]
    assert ".[geo]" in report.lines[0][1]
