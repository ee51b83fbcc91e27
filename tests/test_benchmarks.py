"""Benchmarks and examples: what they import exists, and those that time our own parts run."""

import ast
import importlib
from pathlib import Path

import pytest
import slicing
import small_steps

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_exists(path: Path) -> None:
    """A script that nothing runs would not tell of a function that has another name now."""
    own = {each.stem for each in path.parent.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.split(".")[0]
            if top in own:
                defined = names_of(path.with_name(f"{node.module}.py"))
                missing = {each.name for each in node.names} - defined
            elif top == "rfla":
                module = importlib.import_module(node.module)
                missing = {each.name for each in node.names if not hasattr(module, each.name)}
                missing -= {name for name in missing if is_module(f"{node.module}.{name}")}
            else:
                continue
            assert not missing, f"{path.name}:{node.lineno}: {node.module} has no {missing}"


def names_of(path: Path) -> set[str]:
    """Names that a module defines or imports, without running it."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {each.asname or each.name for each in node.names}
    return names


def is_module(name: str) -> bool:
    """Whether a name is that of a module."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


@pytest.mark.slow
def test_small_steps(capsys: pytest.CaptureFixture[str]) -> None:
    small_steps.compare(side=64, width=16, boxes=3, repeats=1)
    out = capsys.readouterr().out
    assert "64 px, 16 wide" in out and "rfd takes" in out


@pytest.mark.slow
def test_slicing_without_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["slicing.py", "--repeats", "1"])
    monkeypatch.setattr(slicing, "is_installed", lambda library: False)
    slicing.main()
    out = capsys.readouterr().out
    assert "rfla, overlap=0.2:" in out and "third call" in out
