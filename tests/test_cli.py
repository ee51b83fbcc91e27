"""The command line as a person meets it: verbs, help, one-line errors, exit codes, imports."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rfla
from rfla import __version__
from rfla.cfg import load_config, model_part
from rfla.cfg.help_text import VERBS
from rfla.cfg.keys import keys_of, sections_of
from rfla.cfg.schema import Config
from rfla.cli import main
from rfla.data.formats import FORMATS
from rfla.errors import DataError


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RFLA_DATASETS", raising=False)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def weights_file(path: Path) -> None:
    """The smallest safetensors file with metadata of ours: a header and no tensor."""
    part = model_part(load_config({"model": "fcos_p2"})).model_dump()
    header = json.dumps(
        {"__metadata__": {"rfla": json.dumps({"model": part, "imgsz": 320})}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


class TestHelp:
    @pytest.mark.parametrize(
        "words", [(), ("help",), ("--help",), ("-h",), ("detect", "help"), ("detect",)]
    )
    def test_overview_names_every_verb(
        self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
    ) -> None:
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        assert all(f"  {verb} " in out for verb in VERBS)

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_explains_itself_with_an_example(
        self, capsys: pytest.CaptureFixture[str], verb: str
    ) -> None:
        code, out, _ = run(capsys, "help", verb)
        assert code == 0
        assert f"\n  rfla {verb}" in out
        if verb not in ("help", "version"):  # these two are asked with words, not settings
            assert run(capsys, verb, "--help") == (0, out, "")

    @pytest.mark.parametrize("columns", [80, 100])
    def test_lines_fit_the_terminal(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        columns: int,
    ) -> None:
        """Of all verbs and keys; the options of a key with hundreds of them too."""
        monkeypatch.setenv("COLUMNS", str(columns))
        keys = {*keys_of(Config), *sections_of(Config), "recipe", "backbone.name"}
        for words in ((), *((topic,) for topic in (*VERBS, *sorted(keys)))):
            lines = run(capsys, "help", *words)[1].splitlines()
            assert lines and max(map(len, lines)) <= columns, words

    def test_a_key_says_what_it_is_to_the_verb(self, capsys: pytest.CaptureFixture[str]) -> None:
        """imgsz of val is that of the weights; formats= of convert and benchmark are all there."""
        shown = {
            verb: " ".join(run(capsys, "help", verb)[1].split())
            for verb in ("train", "val", "predict", "convert", "benchmark")
        }
        assert "imgsz 800 resize" in shown["train"] and "imgsz trained resize" in shown["val"]
        assert "batch 2 images or slices at a time" in shown["predict"]
        assert all("left out: the best weights" in shown[verb] for verb in ("val", "predict"))
        assert all("cfg=FILE" in shown[verb] for verb in ("train", "val", "predict"))
        assert all(f"{name}" in shown["convert"] for name in (*FORMATS, "aitod-xview"))
        assert (
            "left out: torch, onnx, onnx-half, onnx-int8, torch_export, torchscript"
            in (shown["benchmark"])
        )

    def test_keys_and_sections(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "help", "lr0")[1].splitlines()[1:] == [
            "  kind     number from 0 to 10",
            "  default  0.005",
        ]
        assert "assigner.topk" in run(capsys, "help", "assigner")[1]
        assert run(capsys, "help", "tile")[1].startswith("convert tile: cut large images")
        code, _, err = run(capsys, "help", "learning_rate")
        assert (code, err) == (
            2,
            "error: no verb and no key 'learning_rate'; did you mean 'lr0'?\n",
        )

    @pytest.mark.parametrize(
        "verb", ["train", "val", "predict", "compare", "convert", "import", "inspect", "info"]
    )
    def test_examples_are_read_by_the_grammar(self, verb: str) -> None:
        """Every example of the help names keys that exist."""
        import shlex

        from rfla.cfg import Config
        from rfla.cfg.tokens import parse_tokens
        from rfla.cfg.verbs import OPTIONS

        for example in VERBS[verb][2]:
            words = shlex.split(example.partition("     (")[0])
            assert words[:2] == ["rfla", verb]
            assert parse_tokens(words[2:], OPTIONS.get(verb, Config))

    @pytest.mark.parametrize("words", [("version",), ("--version",), ("-v",)])
    def test_version(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        assert run(capsys, *words) == (0, f"{__version__}\n", "")


INTERRUPTED_IMPORT = """
import os, signal, sys
from rfla.__main__ import main

class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == "rfla.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
main()
"""


CHECKS_THAT_PRINT_BY_RICH = """
import sys
import rfla.checks
from rfla.cli import main
from rfla.engine.console import make_console

rfla.checks.run_checks = lambda: make_console().print("a line")
sys.argv = ["rfla", "checks"]
main()
"""

CHECKS_IN_THE_WORKING_DIRECTORY = """
import os, sys
import rfla.checks
from rfla.cli import main

rfla.checks.run_checks = os.getcwd
sys.argv = ["rfla", "checks"]
main()
"""

FULL = "error: standard output: No space left on device (debug=true shows where)\n"


def in_a_shell(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash with this checkout's package."""
    env = os.environ | {"PYTHONPATH": str(Path(rfla.__file__).parents[1])} | environment
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, env=env)


def ended_in_a_closed_pipe(*words: str) -> tuple[int, bytes]:
    """Run python with an output that nobody reads; return its exit code and standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONPATH": str(Path(rfla.__file__).parents[1])}
    try:
        done = subprocess.run(
            [sys.executable, *words], stdout=writer, stderr=subprocess.PIPE, env=env
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run python with this checkout's package, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(Path(rfla.__file__).parents[1])} | environment
    return subprocess.run([sys.executable, *words], capture_output=True, env=env)


@pytest.mark.parametrize(
    ("command", "kept_out"),
    [
        ("main(['help']); main(['version'])", "'pydantic', 'yaml'"),
        (
            "main(['help', 'train']); main(['cfg']); main(['cfg', 'model=fcos_p2']); "
            "main(['train', 'lr=3'])",
            "'tests'",
        ),
    ],
)
def test_nothing_heavy_is_imported(command: str, kept_out: str) -> None:
    """Help, version, settings and errors answer at once because torch and the like stay out."""
    code = (
        f"import sys; from rfla.cli import main; {command}\n"
        "heavy = {'torch', 'torchvision', 'albumentations', 'matplotlib', 'numpy', 'cv2', 'rich'}\n"
        f"found = (heavy | {{{kept_out}}}) & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    "command",
    [
        ["train", "model=fcos_p2", "data=nothing"],
        ["train", "model=fcos_p2", "data=demo", "device=cpu", "batch=-1"],
        ["val", "model=fcos_p2", "data=nothing"],
        ["predict", "source=nothing"],
        ["predict", "source=."],
        ["import", "weights=yolov8n.pt", "model=fcos", "out=x.safetensors"],
    ],
    ids=" ".join,
)
def test_what_fails_for_sure_fails_without_torch(command: list[str]) -> None:
    code = (
        f"import sys; from rfla.cli import main; code = main({command!r})\n"
        "sys.exit(code if not {'torch', 'matplotlib'} & set(sys.modules) else 'torch')"
    )
    done = shell("-c", code)
    assert done.returncode == 2, done.stderr.decode()


ERRORS = [
    # verbs
    (("trian",), "no verb 'trian'; did you mean 'train'?"),
    (("predcit", "source=x"), "did you mean 'predict'?"),
    (("xyz",), "verbs: train, val, predict"),
    (("epochs=3",), "the verb comes first: rfla train key=value ..."),
    # keys and values
    (("train", "lr=3"), "unknown key 'lr'; did you mean lr0 (default 0.005)?"),
    (("train", "weights=x.pt"), "unknown key 'weights'; did you mean model"),
    (
        ("train", "model=fcos_p2", "data=demo", "lr0=-1"),
        "lr0=-1: must be a number from 0 to 10 (default 0.005)",
    ),
    (("train", "epochs"), "epochs needs a value: epochs=12"),
    (("train", "lr_steps=[1,"), "the bracket is not closed"),
    (("train", "cfg=nothing.yaml"), "nothing.yaml: no such file"),
    # nothing is guessed
    (("train",), "model is missing: a zoo name (autoassign, cascade_rcnn,"),
    (("train", "model=fcos_p2"), "data is missing: a data set (demo, aitod, ...)"),
    (("val",), "data is missing"),
    (
        ("val", "data=demo"),
        "model is missing, and runs has no run with weights; for example: rfla train",
    ),
    (("predict",), "source is missing"),
    (("predict", "source=."), "model is missing, and runs has no run with weights"),
    (("predict", "source=x.png"), "source=x.png: no such file or directory"),
    (("train", "resume"), "resume=true: no run with a training state in runs"),
    # models and data that are not there
    (("train", "model=fcos_p3", "data=demo"), "no model 'fcos_p3'; a model is one of"),
    (("val", "model=nothing.safetensors", "data=demo"), "nothing.safetensors: no such file"),
    (("val", "model=official.pth", "data=demo"), "rfla import weights=official.pth"),
    (("train", "model=fcos_p2", "data=nothing.yaml", "device=cpu"), "nothing.yaml"),
    # words of other tools
    (("export",), "model is missing: weights file (.safetensors) to export"),
    (("export", "model=best.pt"), "pickled weights are not run"),
    (("track", "source=0"), "no verb 'track'; there is no tracking"),
    (("test",), "no verb 'test'; the verb is val: rfla val data=... split=test"),
    (("task=detect", "mode=val", "model=x"), "the verb comes first: rfla val key=value"),
    (("train", "model=yolov8n.pt", "data=coco128.yaml"), "a network of another tool"),
    (("train", "task=detect"), "unknown key 'task'; rfla detects boxes"),
    (("import", "weights=yolo11n.pt", "model=fcos", "out=x.safetensors"), "of another tool"),
    (("predict", "source=0"), "source=0: no camera 0 on this machine"),
    (("predict", "source=flight.mp4"), "source=flight.mp4: no such file or directory"),
    (("predict", "source=ftp://a.b/c.jpg"), "addresses begin with http:// or https://"),
    (("predict", "source=my", "pics"), "quote a value with a space: source='my pics'"),
    (("train", "data=my", "data.yaml", "model=fcos"), "a space: data='my data.yaml'"),
    # what fails for sure fails at once
    (("train", "model=fcos_p2", "data=demo", "device=cpu", "batch=-1"), "batch=-1 looks for"),
    (("val", "model=fcos_p2", "data=nothing"), "data=nothing: no such data YAML"),
    # homes of nobody
    (("train", "model=fcos", "data=~nobody_here/x"), "data=~nobody_here/x: no such data YAML"),
    (("predict", "source=~nobody_here/x"), "source=~nobody_here/x: no such file or directory"),
    (("train", "cfg=~nobody_here/x"), "~nobody_here/x: no such file"),
    (("train", "resume=~nobody_here/x"), "resume=~nobody_here/x: no run there"),
    (("train", "model=~nobody_here/x.yaml"), "no model '~nobody_here/x.yaml'"),
    (("inspect", "data=~nobody_here/x"), "data=~nobody_here/x: no such data YAML"),
    (("convert", "format=coco", "source=~nobody_here/x", "out=y"), "~nobody_here/x"),
    # the other verbs
    (("compare", "a=1"), "b is missing"),
    (("compare", "c=1"), "unknown key 'c'"),
    (("convert",), "format is missing"),
    (("convert", "format=visdrne", "source=x", "out=y"), "did you mean 'visdrone'?"),
    (("convert", "format=visdrone", "source=nothing", "out=y"), "nothing"),
    (("import", "weights=x.pth"), "model is missing"),
    (("inspect",), "data is missing"),
    (("info",), "model is missing"),
    (("info", "model=fcos_p3"), "did you mean 'fcos_p2'?"),
    (("info", "model=fcos_p2", "device=gpu"), "device=gpu: unknown device; use cpu, mps, a GPU"),
    (("info", "model=fcos_p2", "device=77"), "device=77: "),  # more GPUs than any machine has
    (("cfg", "model=fcos_p2", "oops"), "unexpected 'oops'"),
    (("copy-cfg", "out=no/such/dir.yaml"), "no/such/dir.yaml: cannot be written"),
    (("version", "please"), "'rfla version' takes no settings, but got 'please'"),
    (("checks", "x=1"), "takes no settings"),
    (("help", "nonsense"), "no verb and no key 'nonsense'"),
]


@pytest.mark.parametrize(("words", "part"), ERRORS, ids=[" ".join(words) for words, _ in ERRORS])
def test_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err
    assert list(Path.cwd().iterdir()) == []  # an error leaves nothing behind


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("debug=true", "debug", "--debug", "debug=True,"):
        code, _, err = run(capsys, "train", "lr0=x", word)
        assert code == 2
        assert "Traceback" in err and "ConfigError" in err
    assert "Traceback" not in run(capsys, "train", "lr0=x", "debug=false")[2]


def test_control_characters_are_shown_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "train", "model=\x1b[31mred\nline", "data=demo")
    assert "\x1b" not in err
    assert err.count("\n") == 1


class TestSettings:
    def test_cfg_prints_all_defaults(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "cfg")
        assert code == 0
        assert "\nlr0: 0.005 " in out and "\nassigner:\n" in out

    def test_cfg_shows_what_a_run_would_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(
            capsys, "cfg", "model=fcos_p2", "--lr0", "0.25", "assigner.topk", "=", "[2,", "1]"
        )
        Path("x.yaml").write_text(out)
        cfg = load_config({"cfg": "x.yaml"})
        assert (cfg.lr0, cfg.assigner.topk, cfg.neck.start_level) == (0.25, (2, 1), 2)

    def test_verb_in_the_middle(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            run(capsys, "lr0=0.25", "cfg", "model=fcos")[1]
            == run(capsys, "cfg", "lr0=0.25", "model=fcos")[1]
        )

    def test_copy_cfg_never_overwrites_by_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "copy-cfg")[0] == 0
        path = Path("default_copy.yaml")
        assert all(line.startswith("#") or not line for line in path.read_text().splitlines())
        assert load_config({"cfg": str(path)}).given == set()
        path.write_text("mine")
        code, _, err = run(capsys, "copy-cfg")
        assert code == 2 and "default_copy.yaml exists already" in err
        assert path.read_text() == "mine"
        assert run(capsys, "copy-cfg", "overwrite")[0] == 0
        assert path.read_text() != "mine"

    def test_a_line_of_the_copy_taken_out_of_its_comment(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(capsys, "copy-cfg", "out=my.yaml")
        text = Path("my.yaml").read_text().replace("# assigner.decay: 0.9", "assigner.decay: 0.8")
        Path("my.yaml").write_text(text)
        cfg = load_config({"cfg": "my.yaml", "model": "fcos_p2"})
        assert cfg.assigner.decay == 0.8
        assert cfg.given == {"model", "assigner.decay"}


class TestCheckedVerbs:
    def test_checks_run_the_operators(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "checks")
        assert code == 0, out
        assert "torchvision ops" in out and "nms, roi_align and deform_conv2d run" in out

    def test_what_is_missing_is_never_ok(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An extra that is not installed is optional, a requirement is a failure."""
        wanted = ["nonesuch>=1", 'rarity>=2; extra == "geo"']
        monkeypatch.setattr("rfla.checks.metadata.requires", lambda name: wanted)
        code, out, _ = run(capsys, "checks")
        assert code == 1 and "FAIL  nonesuch" in out and "missing: pip install 'nonesuch>=1'" in out
        line = next(line for line in out.splitlines() if " rarity " in line)
        assert line.startswith("-  ") and "in the clone of rfla: pip install '.[geo]'" in line

    def test_a_broken_operator_is_advice_and_exit_code_1(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torchvision

        def missing(*_: object) -> None:
            raise RuntimeError("operator torchvision::nms does not exist\nmore")

        monkeypatch.setattr(torchvision.ops, "nms", missing)
        code, out, _ = run(capsys, "checks")
        assert code == 1
        assert "FAIL  torchvision ops" in out and "install both from the same index" in out


class TestLatestRun:
    def test_val_and_predict_take_the_latest_weights_and_say_so(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str | None] = []
        import rfla.predict.command
        import rfla.predict.validation
        from rfla.cfg import Config
        from rfla.predict.command import Prediction

        def predicted(cfg: Config) -> Prediction:
            seen.append(cfg.model)
            return Prediction(Path("runs"), [])

        monkeypatch.setattr("rfla.tools.demo.prepare_demo", lambda data: None)
        monkeypatch.setattr(rfla.predict.validation, "validate", lambda cfg: seen.append(cfg.model))
        monkeypatch.setattr(rfla.predict.command, "predict", predicted)
        for age, name in ((100, "train"), (0, "train2"), (50, "train3")):
            path = Path("runs") / name / "weights" / "best.safetensors"
            path.parent.mkdir(parents=True)
            weights_file(path)
            os.utime(path, (time.time() - age,) * 2)
        latest = "runs/train2/weights/best.safetensors"
        Path("dets.json").write_text("[]")
        code, out, _ = run(capsys, "val", "data=demo")
        assert (code, out) == (0, f"model={latest} (the latest run)\n")
        assert run(capsys, "predict", "source=runs")[0] == 0
        assert run(capsys, "val", "data=demo", "model=runs/train/weights/best.safetensors")[1] == ""
        assert run(capsys, "val", "data=demo", "predictions=dets.json")[1] == ""
        assert seen == [latest, latest, "runs/train/weights/best.safetensors", None]


class TestEndings:
    def test_interrupt_is_one_line_and_130(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("rfla.checks.run_checks", interrupted)
        code, _, err = run(capsys, "checks")
        assert (code, err.strip()) == (130, "stopped")

    def test_interrupt_while_torch_is_half_imported(self) -> None:
        """An exception there may surface anywhere, many lines long: the process ends at once."""
        code = (
            "import os, signal, sys, types; from rfla.terminal import on_interrupt; "
            "signal.signal(2, on_interrupt); "
            "spec = types.SimpleNamespace(_initializing=True); "
            "sys.modules['torch'] = types.SimpleNamespace(__spec__=spec); "
            "os.kill(os.getpid(), 2); print('still here')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")

    def test_an_operating_system_error_is_one_line(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full() -> None:
            raise OSError(28, "No space left on device", "runs/train/x")

        monkeypatch.setattr("rfla.checks.run_checks", full)
        code, _, err = run(capsys, "checks")
        assert (code, err) == (
            2,
            "error: runs/train/x: No space left on device (debug=true shows where)\n",
        )

    def test_a_defect_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr("rfla.checks.run_checks", broken)
        with pytest.raises(ZeroDivisionError) as caught:
            main(["checks"])
        assert "defect of rfla" in caught.value.__notes__[0]

    def test_advice_in_steps_keeps_its_lines(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bad() -> None:
            raise DataError("advice\n  in steps\n")

        monkeypatch.setattr("rfla.checks.run_checks", bad)
        assert run(capsys, "checks")[2] == "error: advice\n  in steps\n"

    @pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
    def test_a_closed_pipe_is_quiet(self) -> None:
        code = f"{sys.executable} -m rfla cfg | head -n 1; exit ${{PIPESTATUS[0]}}"
        env = os.environ | {"PYTHONPATH": str(Path(rfla.__file__).parents[1])}
        done = subprocess.run(["/bin/bash", "-c", code], capture_output=True, text=True, env=env)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        assert done.returncode in (0, 141)  # 0 where the pipe took all before head closed it

    @pytest.mark.parametrize("verb", ["help", "cfg"])
    def test_a_pipe_that_is_closed_already(self, verb: str) -> None:
        """`cfg` runs within typer, which makes a SystemExit of it."""
        assert ended_in_a_closed_pipe("-m", "rfla", verb) == (141, b"")

    def test_a_pipe_that_is_closed_before_rich_prints(self) -> None:
        assert ended_in_a_closed_pipe("-c", CHECKS_THAT_PRINT_BY_RICH) == (141, b"")

    def test_other_processes_of_a_run_end_with_their_own_code(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ended() -> None:
            raise SystemExit(2)

        monkeypatch.setattr("rfla.checks.run_checks", ended)
        with pytest.raises(SystemExit, match="2"):
            main(["checks"])

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="devices of Linux")
    @pytest.mark.parametrize("buffered", ["", "1"])
    @pytest.mark.parametrize(
        ("command", "code", "said"),
        [
            ("help >&-", 0, ""),
            ("cfg >&-", 0, ""),
            ("trian >&-", 2, "error: no verb 'trian'; did you mean 'train'?\n"),
            ("trian 2>&-", 2, ""),
            ("cfg <&- >&- 2>&-", 0, ""),
            ("help >/dev/full", 2, FULL),
            ("cfg >/dev/full", 2, FULL),
            ("trian 2>/dev/full", 2, ""),
            ("trian debug 2>/dev/full", 2, ""),
        ],
    )
    def test_closed_and_full_outputs(
        self, command: str, code: int, said: str, buffered: str
    ) -> None:
        done = in_a_shell(f"{sys.executable} -m rfla {command}", PYTHONUNBUFFERED=buffered)
        assert (done.returncode, done.stderr, done.stdout) == (code, said, "")

    def test_a_closed_output_gives_its_number_to_no_file(self) -> None:
        """Libraries that print to 1 and 2 would write into a file of ours."""
        code = (
            "import os; from rfla.terminal import survive_any_terminal as begin; begin(); "
            "os._exit(open(os.devnull).fileno())"
        )
        assert in_a_shell(f"{sys.executable} -c '{code}' <&- >&- 2>&-").returncode > 2

    def test_a_working_directory_that_is_gone(self) -> None:
        """The first file of a run is looked for there, wherever the model and the source are."""
        command = "mkdir gone; cd gone; rmdir ../gone; "
        done = in_a_shell(f"{command}{sys.executable} -c '{CHECKS_IN_THE_WORKING_DIRECTORY}'")
        message = "error: the current directory no longer exists (debug=true shows where)\n"
        assert (done.returncode, done.stderr) == (2, message)

    def test_module_and_exit_code(self) -> None:
        done = shell("-m", "rfla", "trian")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode().splitlines() == [
            "error: no verb 'trian'; did you mean 'train'?"
        ]

    def test_an_interrupt_before_there_is_a_command_line(self) -> None:
        done = shell("-c", INTERRUPTED_IMPORT)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"stopped\n")

    def test_a_terminal_that_knows_no_unicode(self) -> None:
        done = shell(
            "-m", "rfla", "train", "name=ü", "lr0=ü", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
        )
        assert done.returncode == 2
        assert b"lr0=\\xfc" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 45.8 MiB"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        ImportError("libx.so: cannot allocate memory in static TLS block"),
    ],
)
def test_too_little_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fall(*_: object) -> None:
        raise error

    monkeypatch.setattr("rfla.cli._dispatch", fall)
    code, _, err = run(capsys, "checks")
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: not enough memory: ")
    monkeypatch.setattr("rfla.cli._dispatch", lambda _: __import__("no_such_module"))
    with pytest.raises(ImportError):
        run(capsys, "checks")
