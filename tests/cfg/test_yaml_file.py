"""YAML that somebody else wrote: read with line numbers, or refused in one line, in bounds."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg import yaml_file
from rfla.cfg.yaml_file import read_yaml
from rfla.errors import ConfigError


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_values_and_lines(tmp_path: Path) -> None:
    file = read_yaml(
        write(tmp_path, "lr0: 1e-3\naug:\n  fliplr: 0.5\n  flipud: 0\nlr_steps: [8, 11]\n")
    )
    assert file.values == {"lr0": 0.001, "aug": {"fliplr": 0.5, "flipud": 0}, "lr_steps": [8, 11]}
    assert file.lines["aug.flipud"] == 4
    assert file.where("aug.flipud").endswith("x.yaml:4")
    assert file.where("nothing").endswith("x.yaml")


@pytest.mark.parametrize("content", ["", "# only a comment\n", "{}", "\ufeff{}"])
def test_empty_files_say_nothing(tmp_path: Path, content: str) -> None:
    assert read_yaml(write(tmp_path, content)).values == {}


LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (LAUGHS, "x.yaml:2: aliases (*a) are not read"),
        ("a: &a {b: *a}\n", "aliases"),  # a structure that contains itself
        ("base: &b {lr0: 1}\n<<: *b\n", "x.yaml:2: aliases"),
        ("epochs: 1\nlr0: 2\nepochs: 3\n", "x.yaml:3: the key 'epochs' comes twice"),
        ("aug:\n\tfliplr: 1\n", "x.yaml:2: not valid YAML: a tab"),
        ("a: !!python/object/apply:os.system ['echo no']\n", "x.yaml:1: tags"),
        ("a: !thing 3\n", "tags"),
        ("a: !!timestamp x\n", "x.yaml:1: tags (!...) are not read"),
        ("a: [!!int x]\n", "tags"),
        ("a: 1\nb: 0x" + "f" * 5000 + "\n", "x.yaml:2: a whole number of more than 64 bits"),
        ("a: [9223372036854775808]\n", "more than 64 bits"),
        ("? [1, 2]\n: 3\n", "x.yaml:1: a key must be a plain word"),
        ("- 1\n- 2\n", "must hold 'key: value' lines, not a list"),
        ("just text\n", "must hold 'key: value' lines, not a str"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: b: c\n", "x.yaml:1: not valid YAML"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("a: " + "9" * 5000 + "\n", "x.yaml"),
        ("a: " + "[" * 5000, "x.yaml:1: nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("- - - - - \n" * 40_000, "more than 20000 entries"),
        (b"a: \xff\xfe\n", "not UTF-8 text (byte 3)"),
        (b"a: \x00\n", "x.yaml"),
        (b"\x80\x04\x95", "not UTF-8"),  # a pickle
        (b"a" * (yaml_file.MAX_BYTES + 1), "larger than 512 KiB"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, content: str | bytes, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(write(tmp_path, content))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="is a directory; a file is needed"):
        read_yaml(tmp_path)
    with pytest.raises(ConfigError, match="is a device; a file is needed"):
        read_yaml("/dev/zero")  # endless
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a named pipe; a file is needed"):
        read_yaml(tmp_path / "pipe")  # would wait for ever
    with pytest.raises(ConfigError, match="is a file of the kernel"):
        read_yaml("/proc/self/maps")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "loop")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml("a\0b")


@given(
    st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@? \n\t,0.e~"), max_size=40)
    | st.binary(max_size=40)
)
@settings(max_examples=300, deadline=None)
def test_any_content_is_a_mapping_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp(), content)
    try:
        assert isinstance(read_yaml(path).values, dict)
    except ConfigError as error:
        assert "\n" not in str(error)
