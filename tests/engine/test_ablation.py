"""A study: which runs it asks for, and the table of their records."""

import json
from pathlib import Path
from typing import Any

import pytest
from studies import Study, write_record
from study_tables import write_tables

STUDY = """
settings: {recipe: scratch}
data: {ships: {imgsz: 128, epochs: 10}}
variants: {ours: {model: rfd}, theirs: {model: fcos_p2}}
seeds: [0, 1]
reference: theirs
equal_time: [ours]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "heads.yaml"
    path.write_text(STUDY)
    return Study.read(path)


def record(study: Study, out: Path, variant: str, seed: int, ap: float, seconds: float) -> None:
    """As a run leaves it."""
    job = study.job("ships", variant, seed)
    figures = {"ap": ap, "ap_vt": -1.0}
    entry: dict[str, Any] = {"data": "ships", "variant": variant, "seed": seed}
    entry |= {"settings": job.settings, "seconds": seconds, "resumed": False, "figures": figures}
    (out / job.place).mkdir(parents=True)
    write_record(out / job.place, entry | {"device": "CPU", "torch": "2"})


def test_all_variants_of_a_seed_come_first(study: Study) -> None:
    assert [job.place for job in study.jobs()] == [
        "ships/ours/0",
        "ships/theirs/0",
        "ships/ours/1",
        "ships/theirs/1",
    ]
    assert study.job("ships", "ours", 0).settings == {
        "recipe": "scratch",
        "imgsz": 128,
        "epochs": 10,
        "model": "rfd",
    }


def test_a_slower_variant_gets_fewer_epochs(study: Study, tmp_path: Path) -> None:
    """8 s an epoch beside 4 s: half of 10 epochs."""
    assert not list(study.timed_jobs(tmp_path))
    record(study, tmp_path, "ours", 0, 0.3, 80)
    record(study, tmp_path, "theirs", 0, 0.2, 40)
    jobs = list(study.timed_jobs(tmp_path))
    assert [(job.place, job.settings["epochs"]) for job in jobs] == [
        ("ships/ours_equal_time/0", 5),
        ("ships/ours_equal_time/1", 5),
    ]


def test_the_table(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """AP .3 and .4: .35 on average, and 0.1 / sqrt(2) = .071 apart; .15 above the reference."""
    for seed, (ours, theirs) in enumerate([(0.3, 0.2), (0.4, 0.2)]):
        record(study, tmp_path, "ours", seed, ours, 80)
        record(study, tmp_path, "theirs", seed, theirs, 40)
    write_tables(study, tmp_path, tmp_path / "heads.csv", None)
    lines = capsys.readouterr().out.splitlines()
    assert "| ours | 2 | 10 | .350 ± .071 | - | - | - | - | - | - | +.150 | 2.00 |" in lines
    assert "| theirs | 2 | 10 | .200 ± .000 | - | - | - | - | - | - |  | 1.00 |" in lines
    assert len((tmp_path / "heads.csv").read_text().splitlines()) == 1 + 4


def test_runs_of_other_machines_stay(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CSV keeps what this machine has no record of; what it ran again is replaced."""
    file, first, second = tmp_path / "heads.csv", tmp_path / "first", tmp_path / "second"
    record(study, first, "ours", 0, 0.3, 80)
    record(study, first, "theirs", 0, 0.2, 40)
    write_tables(study, first, file, None)
    record(study, second, "ours", 0, 0.5, 80)
    record(study, second, "ours", 1, 0.4, 100)
    capsys.readouterr()
    write_tables(study, second, file, None)
    lines = capsys.readouterr().out.splitlines()
    assert "| ours | 2 | 10 | .450 ± .071 | - | - | - | - | - | - | +.300 | 2.25 |" in lines
    assert [line.split(",")[1:5] for line in file.read_text().splitlines()[1:]] == [
        ["ours", "0", "10", "0.5"],
        ["ours", "1", "10", "0.4"],
        ["theirs", "0", "10", "0.2"],
    ]


def test_a_word_that_no_study_has(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({"data": {}, "variants": {"a": {}}, "seed": [1]}))
    with pytest.raises(SystemExit, match=r"unknown \['seed'\]; a study has \['data', "):
        Study.read(path)
