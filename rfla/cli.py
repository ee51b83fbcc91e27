"""The `rfla` command: verbs and key=value tokens.

Each verb checks what was typed and calls one function. Nothing heavy is imported before a verb
needs it: `rfla help` and `rfla version` answer without torch.
"""

import atexit
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfla.cfg.help_text import VERBS, explain, overview
from rfla.errors import ConfigError, DataError, RflaError, did_you_mean, lacks_memory, one_line
from rfla.stop_signals import STOP_SIGNALS
from rfla.terminal import (
    DEBUG,
    INTERRUPTED,
    complain,
    end_quietly,
    fail,
    in_words,
    leave,
    log_to_stderr,
    on_interrupt,
    say,
    survive_any_terminal,
)

if TYPE_CHECKING:
    from rfla.cfg import Config
    from rfla.cfg.schema import Mode

Tokens = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_AS_TYPED: Any = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
}
_SYNONYMS = {
    "-h": "help",
    "--help": "help",
    "-v": "version",
    "-V": "version",
    "--version": "version",
    "copy_cfg": "copy-cfg",
}


@app.command(**_AS_TYPED)
def train(tokens: Tokens = None) -> None:
    """Train a detector."""
    cfg = _config(tokens, "train")
    _prepare_data(cfg.data)
    from rfla.engine.trainer import train

    train(cfg)


@app.command(**_AS_TYPED)
def val(tokens: Tokens = None) -> None:
    """Evaluate a trained detector, or any detections file."""
    cfg = _config(tokens, "val")
    _prepare_data(cfg.data)
    from rfla.predict.validation import validate

    validate(cfg)


@app.command(**_AS_TYPED)
def predict(tokens: Tokens = None) -> int:
    """Detect objects in images."""
    cfg = _config(tokens, "predict")
    from rfla.predict.command import predict

    return 1 if predict(cfg).skipped else 0


@app.command(**_AS_TYPED)
def compare(tokens: Tokens = None) -> None:
    """Compare two runs or two detections files."""
    from rfla.cfg.verbs import CompareOptions, load_options, required

    options, _ = load_options(tokens or [], CompareOptions)
    required(options, "compare", a="runs/val", b="runs/val2")
    _prepare_data(options.data)
    from rfla.tools.compare import run_compare

    run_compare(options)


@app.command(**_AS_TYPED)
def convert(tokens: Tokens = None) -> int:
    """Convert a data set to another annotation format, whole or in tiles."""
    from rfla.cfg.verbs import ConvertOptions, load_options, required

    options, _ = load_options(tokens or [], ConvertOptions)
    required(options, "convert", format="visdrone", out="DIR")
    from rfla.tools.convert.command import run_convert

    return run_convert(options)


@app.command("import", **_AS_TYPED)
def import_weights(tokens: Tokens = None) -> None:
    """Convert official MMDetection weights to an rfla weights file."""
    from rfla.cfg.verbs import (
        ImportOptions,
        check_out,
        load_options,
        refuse_foreign_weights,
        required,
    )

    options, _ = load_options(tokens or [], ImportOptions)
    required(options, "import", weights="official.pth", model="faster_rcnn", out="x.safetensors")
    refuse_foreign_weights(options.weights or "")
    from rfla.models.mmdet import import_checkpoint

    out = options.out or ""
    check_out(out, options.overwrite)
    names = options.names or None
    say(import_checkpoint(options.weights or "", options.model or "", out, names))


@app.command(**_AS_TYPED)
def export(tokens: Tokens = None) -> None:
    """Export a trained network for other programs."""
    from rfla.cfg.verbs import ExportOptions, load_options, required

    options, _ = load_options(tokens or [], ExportOptions)
    required(options, "export", model="best.safetensors", format="onnx")
    _prepare_data(options.data)
    from rfla.export.command import export

    say(export(options).report)


@app.command(**_AS_TYPED)
def benchmark(tokens: Tokens = None) -> None:
    """Compare the forms of a trained network: size, time and AP."""
    from rfla.cfg.verbs import BenchmarkOptions, load_options, required

    options, _ = load_options(tokens or [], BenchmarkOptions)
    required(options, "benchmark", model="best.safetensors", data="my.yaml")
    _prepare_data(options.data)
    from rfla.export.benchmark import benchmark

    benchmark(options, say)


@app.command(**_AS_TYPED)
def inspect(tokens: Tokens = None) -> int:
    """Check a data set before training on it."""
    from rfla.cfg.verbs import InspectOptions, load_options, required

    options, given = load_options(tokens or [], InspectOptions)
    required(options, "inspect", data="my.yaml")
    _prepare_data(options.data)
    from rfla.tools.inspect.command import run_inspect

    return run_inspect(options, given)


@app.command(**_AS_TYPED)
def info(tokens: Tokens = None) -> None:
    """Show the size and cost of a model."""
    from rfla.cfg.verbs import InfoOptions, load_options, required

    options, given = load_options(tokens or [], InfoOptions)
    settings = {key: value for key, value in given.items() if "." in key}
    if "backbone.name" not in settings:
        required(options, "info", model="fcos_p2")
    from rfla.engine.device import select_device
    from rfla.models.cost import backbone_cost, cost

    device = str(select_device(options.device))  # "0" becomes "cuda:0"
    if options.model is None:
        say(backbone_cost(options.backbone.name, options.imgsz).table())
        return
    say(cost(options.model, options.imgsz, options.classes, device, settings).table())


@app.command(**_AS_TYPED)
def rf(tokens: Tokens = None) -> None:
    """Show the receptive fields of a model."""
    from rfla.cfg.verbs import FieldOptions, load_options, required

    options, given = load_options(tokens or [], FieldOptions)
    required(options, "rf", model="fcos_p2")
    _prepare_data(options.data)
    from rfla.tools.rf import run_fields

    run_fields(options, given)


@app.command(**_AS_TYPED)
def cfg(tokens: Tokens = None) -> None:
    """Show the settings: all defaults, or what a run would use."""
    from rfla.cfg.document import DEFAULT_YAML, to_yaml

    if tokens:
        from rfla.cfg import Config, load_config
        from rfla.cfg.tokens import parse_tokens

        say(to_yaml(load_config(parse_tokens(tokens, Config))), end="")
    else:
        print(DEFAULT_YAML.read_text(encoding="utf-8"), end="")


@app.command("copy-cfg", **_AS_TYPED)
def copy_cfg(tokens: Tokens = None) -> None:
    """Write a settings file to start from."""
    from rfla.cfg.document import write_template
    from rfla.cfg.verbs import CopyOptions, load_options

    options, _ = load_options(tokens or [], CopyOptions)
    write_template(options.out, options.overwrite)
    say(
        f"wrote {options.out}: uncomment what you want to change, then: "
        f"rfla train {shlex.quote(f'cfg={options.out}')} model=... data=..."
    )


@app.command(**_AS_TYPED)
def checks(tokens: Tokens = None) -> int:
    """Check the installation."""
    _no_more(tokens, "checks")
    from rfla.checks import run_checks

    report = run_checks()
    say(report.text())
    return 0 if report.good else 1


@app.command(**_AS_TYPED)
def version(tokens: Tokens = None) -> None:
    """Print the version."""
    _no_more(tokens, "version")
    from rfla.version import __version__

    print(__version__)


@app.command("help", **_AS_TYPED)
def show_help(tokens: Tokens = None) -> None:
    """Explain a verb or a key."""
    say("\n\n".join(explain(topic) for topic in tokens) if tokens else overview())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code.

    0, 1 for a failed check, 2 for what the user can fix, as a shell counts for signals.
    """
    if argv is not None:
        return _run(list(argv))
    ended = [1]  # an exception that nobody expected
    # Registered before anything is imported, this runs last of all: taking torch down piece by
    # piece takes the interpreter seconds, and there is nothing left to do.
    atexit.register(lambda: leave(ended[0]))
    # The same signals end a training with its state written: `engine.hooks.StopSignals`.
    for number in STOP_SIGNALS:
        signal.signal(number, on_interrupt)
    ended[0] = _run(sys.argv[1:])
    return ended[0]


def _run(arguments: list[str]) -> int:
    """Run one command line, and turn what can go wrong into a line and an exit code."""
    survive_any_terminal()
    log_to_stderr()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except DataError as error:  # may be advice in steps: how to obtain a data set
        return fail(str(error).rstrip(), error.exit_code, arguments)
    except RflaError as error:
        return fail(" ".join(str(error).split()), error.exit_code, arguments)
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, for example `head`
        return end_quietly()
    except SystemExit as error:  # which typer and rich make of the same
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return end_quietly()
    except OSError as error:
        message = f"{in_words(error)} (debug=true shows where)"
        return fail(message, RflaError.exit_code, arguments)
    except Exception as error:
        if lacks_memory(error):
            message = (
                "not enough memory: smaller images, tiles or batches need less, as do fewer "
                f"workers ({one_line(error)[:120]})"
            )
            return fail(message, RflaError.exit_code, arguments)
        error.add_note("This is a defect of rfla: please report it with the lines above.")
        raise


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["detect"]:  # the task word of another tool's grammar
        arguments = arguments[1:]
    verb, *tokens = arguments or ["help"]
    later = [token for token in tokens if token in VERBS]
    if "=" in verb and later:  # key=value VERB key=value
        tokens = [verb, *tokens]
        verb = tokens.pop(tokens.index(later[0]))
    verb = _SYNONYMS.get(verb, verb)
    if verb not in VERBS:
        raise ConfigError(f"no verb '{verb[:60]}'{_instead_of(verb, tokens)}")
    if any(token in ("-h", "--help") for token in tokens):
        verb, tokens = "help", [verb]
    if verb in ("help", "version"):  # typer's parser takes longer to load than these to answer
        (show_help if verb == "help" else version)(tokens)
        return 0
    # "--" keeps typer from reading tokens that begin with a dash: rfla.cfg.tokens parses them.
    code = app(args=[verb, "--", *tokens], prog_name="rfla", standalone_mode=False)
    if code == INTERRUPTED:  # typer turns Ctrl-C into its exit code
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _instead_of(verb: str, tokens: Sequence[str]) -> str:
    """What to type instead of a word that is no verb."""
    from rfla.cfg.foreign import VERBS as FOREIGN

    word = verb.lower().lstrip("-")
    if "=" in verb:
        modes = [token.removeprefix("mode=") for token in (verb, *tokens) if "mode=" in token]
        named = next((mode for mode in modes if mode in VERBS), "train")
        return f"; the verb comes first: rfla {named} key=value ..."
    if word in FOREIGN:
        return f"; {FOREIGN[word]}"
    return did_you_mean(word, VERBS) or f"; verbs: {', '.join(VERBS)}"


def _config(tokens: Sequence[str] | None, mode: "Mode") -> "Config":
    """Read the tokens of train, val or predict into settings; note keys that have no use there."""
    from rfla.cfg import Config, load_config
    from rfla.cfg.keys_used import unused
    from rfla.cfg.preflight import check_early
    from rfla.cfg.tokens import parse_tokens

    settings = parse_tokens(tokens or [], Config)
    if mode == "predict" and isinstance(settings.get("source"), str):
        from rfla.predict.sources import check_source

        check_source(settings["source"])  # first, as there may be no model yet
    if mode != "train" and not settings.get("resume"):
        settings |= _latest_model(settings, mode)
    config = load_config(settings, mode=mode)
    check_early(config, mode)
    idle = unused(config.given, mode, config)
    if idle and mode != "train":  # training says so itself, in Python too
        say(f"not used by {mode}: {', '.join(idle)}")
    return config


def _latest_model(settings: dict[str, Any], mode: "Mode") -> dict[str, Any]:
    """Default `model=` of val and predict to the weights of the latest run, and say so."""
    from rfla.cfg import load_config

    about = ("cfg", "model", "predictions", "data", "source", "project")
    given = load_config({key: settings[key] for key in about if key in settings})
    subject = given.data if mode == "val" else given.source
    if given.model or subject is None or (mode == "val" and given.predictions):
        return {}
    from rfla.cfg.resume import latest_weights

    latest = latest_weights(given.project)
    if latest is None:
        raise ConfigError(
            f"model is missing, and {given.project} has no run with weights; "
            f"for example: {VERBS['train'].examples[0]}"
        )
    say(f"model={latest} (the latest run)")
    return {"model": str(latest)}


def _prepare_data(data: str | None) -> None:
    """Paint the demo set where it is what `data` names and it is not there yet."""
    if data is not None:
        from rfla.tools.demo import prepare_demo

        prepare_demo(data)


def _no_more(tokens: Sequence[str] | None, verb: str) -> None:
    rest = [token for token in tokens or [] if not DEBUG.search(token)]
    if rest:
        raise ConfigError(f"'rfla {verb}' takes no settings, but got '{rest[0][:60]}'")
