"""The texts of `rfla help`, `rfla help VERB` and `rfla help KEY`."""

import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

from rfla.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rfla.cfg.keys import Key


class VerbText(NamedTuple):
    """What the help says of a verb.

    Attributes:
        line: What it does, in a few words.
        text: More, as one paragraph; may be empty.
        examples: Command lines.
    """

    line: str
    text: str
    examples: tuple[str, ...]


VERBS = {
    "train": VerbText(
        "train a detector",
        "Writes runs/train (then train2, ...) with weights/best.safetensors, results.csv, "
        "curves and pictures. Ctrl-C saves the state; 'rfla train resume=RUN' continues the "
        "run.",
        (
            "rfla train model=fcos_p2 data=demo",
            "rfla train model=faster_rcnn data=aitod assigner=baseline",
            "rfla train model=rfd data=my.yaml epochs=24              (your own data)",
            "rfla train model=best.safetensors data=my.yaml           (train further)",
            "rfla train resume=runs/train",
        ),
    ),
    "val": VerbText(
        "evaluate a trained detector, or any detections file",
        "Prints AP by IoU, size and class under the protocol of the data set, and writes a report, "
        "results.json and predictions.json into runs/val. Without model= it takes the best weights "
        "of the latest run and prints which. data= must be given.",
        (
            "rfla val data=demo",
            "rfla val model=runs/train/weights/best.safetensors data=aitod split=test",
            "rfla val predictions=detections.json data=aitod split=test",
        ),
    ),
    "predict": VerbText(
        "detect objects in images",
        "Writes annotated pictures and predictions.json (COCO format). Without model= it takes "
        "the best weights of the latest run and prints which. source= must be given: an image or "
        "video, a directory, a pattern in quotes, a .txt list of paths, an http(s) address, or "
        "the number of a camera.",
        (
            "rfla predict source=images/",
            "rfla predict model=best.safetensors source='*.png' conf=0.3 save_txt",
            "rfla predict source=scene.tif slice=800                  (large images)",
            "rfla predict source=flight.mp4 save_video=true           (videos)",
        ),
    ),
    "compare": VerbText(
        "compare two runs or two detections files",
        "Shows the difference of each metric with a bootstrap interval over images, and the "
        "images that changed most. A run directory is one that 'rfla val' wrote.",
        ("rfla compare a=runs/val b=runs/val2", "rfla compare a=one.json b=two.json data=my.yaml"),
    ),
    "convert": VerbText(
        "convert a data set to another annotation format, whole or in tiles",
        "Leaves the source as it is. Writes a data.yaml for 'rfla train data='.",
        (
            "rfla convert format=visdrone source=VisDrone2019-DET out=visdrone",
            "rfla convert format=dota source=DOTA out=dota tile=800 overlap=200",
            "rfla convert format=aitod-xview annotations=A xview=B wo_xview=C out=aitod",
        ),
    ),
    "export": VerbText(
        "export a trained network for other programs",
        "Writes an ONNX file, or a program of torch, that holds the whole way from RGB pixels to "
        "boxes: normalisation, network, decoding, NMS. It is compared with torch before it is "
        "written. 'rfla predict' and 'rfla val' run an .onnx by onnxruntime. ONNX needs the "
        "extra [export]; see docs/export.md.",
        (
            "rfla export model=best.safetensors format=onnx",
            "rfla export model=best.safetensors dynamic=false batch=1 imgsz=800 half",
            "rfla export model=best.safetensors int8=true data=my.yaml out=best-int8.onnx",
            "rfla export model=best.safetensors format=torch_export",
            "rfla predict model=best.onnx source=images/",
        ),
    ),
    "benchmark": VerbText(
        "compare the forms of a trained network: size, time and AP",
        "Exports the weights in each form and evaluates all of them on one split: file size, "
        "ms per image, AP and AP by object size.",
        ("rfla benchmark model=best.safetensors data=my.yaml fraction=100",),
    ),
    "import": VerbText(
        "convert official MMDetection weights to an rfla weights file",
        "Reads the .pth without running its pickle, maps every key, and refuses a partial match.",
        ("rfla import weights=official.pth model=faster_rcnn out=mine.safetensors",),
    ),
    "inspect": VerbText(
        "check a data set before training on it",
        "Opens every image; checks boxes, ids, duplicates and leakage between splits. The exit "
        "code is 0 if the data is safe to train on. With model= it also reports how that "
        "model's assigner treats the boxes.",
        (
            "rfla inspect data=my.yaml",
            "rfla inspect data=my.yaml model=fcos_p2 assigner.topk=[5,1]",
        ),
    ),
    "info": VerbText(
        "show the size and cost of a model or a backbone",
        "Parameters, floating-point operations and memory; of weights also the object sizes of "
        "their training. Settings of backbone.*, neck.* and head.* change the model.",
        (
            "rfla info model=fcos_p2",
            "rfla info model=best.safetensors imgsz=1024",
            "rfla info backbone=convnext_tiny",
            "rfla info model=fcos_p2 backbone=timm/convnext_atto neck.width=64",
        ),
    ),
    "rf": VerbText(
        "show the receptive fields of a model",
        "Traces what each pyramid level can see, measures what it looks at, and says which boxes "
        "each level serves. Writes fields.json and fields.png into runs/rf. Any setting of the "
        "backbone, the pyramid and the assigner can be tried.",
        (
            "rfla rf model=fcos_p2 backbone=resnet18 imgsz=256",
            "rfla rf model=runs/train/weights/best.safetensors data=my.yaml",
            "rfla rf model=faster_rcnn data=my.yaml assigner.fields=measured",
        ),
    ),
    "cfg": VerbText(
        "show the settings",
        "Alone: every key of train, val and predict with its default. With settings: what a run "
        "would use, all layers merged.",
        ("rfla cfg", "rfla cfg model=fcos_p2 data=aitod lr0=0.01"),
    ),
    "copy-cfg": VerbText(
        "write a settings file to start from",
        "Every key is a comment with its default: uncomment what you want to change, and pass "
        "the file as cfg=FILE.",
        ("rfla copy-cfg", "rfla copy-cfg out=my.yaml"),
    ),
    "checks": VerbText(
        "check the installation",
        "Versions, devices, and whether torchvision's compiled operators run. The exit code is "
        "1 if something is broken.",
        ("rfla checks",),
    ),
    "version": VerbText("print the version", "", ("rfla version",)),
    "help": VerbText(
        "explain a verb or a key",
        "",
        ("rfla help", "rfla help train", "rfla help lr0", "rfla help assigner"),
    ),
}


_LONGEST = 24  # characters of a default that stands in its column

# Default and meaning of keys that mean something else to a verb than to others; "": the default is
# that of the schema.
_WITH_WEIGHTS = {
    "model": (
        "latest",
        "weights (.safetensors) or exported network (.onnx); left out: the best weights of the "
        "latest run",
    ),
    "imgsz": (
        "trained",
        "resize the long side to this many px, keep the aspect, pad to the stride; left out: as in "
        "training",
    ),
}
_OF_VERB = {
    "train": {
        "model": ("", "zoo name, model YAML, or weights (.safetensors) to train further"),
        "batch": (
            "",
            "images per training step, over all devices together; -1: as many as fit on the GPU",
        ),
    },
    "val": _WITH_WEIGHTS
    | {
        "batch": ("", "images at a time, in each process"),
        "verbose": ("", "print the settings and the per-class table"),
        "save_json": ("", "write predictions.json, for 'rfla compare'"),
    },
    "predict": _WITH_WEIGHTS
    | {
        "batch": ("", "images or slices at a time; left out on a GPU: 16 of 800 px"),
        "verbose": ("", "print the settings and a line for each image"),
    },
}


def overview() -> str:
    """Return the text of `rfla help`."""
    width = max(len(verb) for verb in VERBS)
    lines = [
        *_hanging("rfla VERB key=value ...    ", "detection of tiny objects, 2 to 32 pixels", 4),
        "",
    ]
    for verb, about in VERBS.items():
        lines += _hanging(f"  {verb:<{width}}  ", about.line, width + 4)
    settings = "key=value in any order: epochs=24 assigner.topk=[3,1] cos_lr."
    more = "rfla help VERB, rfla help KEY, rfla cfg (all settings of a run)"
    lines += [
        "",
        *_hanging("Settings are ", settings, 4),
        "--key value works too.",
        "Try first:  rfla train model=fcos_p2 data=demo",
        *_hanging("More:       ", more, 12),
    ]
    return "\n".join(lines)


def explain(topic: str) -> str:
    """Return the text of `rfla help TOPIC` for a verb, a key or a section of keys.

    Raises:
        ConfigError: there is no such verb or key.
    """
    if topic in VERBS:
        return _verb(topic)
    from rfla.cfg.keys import keys_of, sections_of, show, suggestions
    from rfla.cfg.schema import Config

    keys = keys_of(Config)
    if topic in sections_of(Config):
        inside = [key for key in keys.values() if key.section == topic]
        return "\n".join([f"{topic}: {sections_of(Config)[topic]}", "", *_rows(inside)])
    if topic not in keys and (of_verbs := _of_verbs(topic)):
        return of_verbs
    if topic not in keys:
        near = did_you_mean(topic, VERBS) or (
            f"; did you mean '{found[0].name}'?" if (found := suggestions(topic, Config)) else ""
        )
        raise ConfigError(f"no verb and no key '{show(topic)}'{near}")
    key = keys[topic]
    lines = _about(key.name, key)
    hidden = [option for option in key.options if option not in key.kind]
    if hidden:
        lines += [
            "",
            *textwrap.wrap(
                ", ".join(hidden), _width(), initial_indent="  ", subsequent_indent="  "
            ),
        ]
    if topic == "recipe":
        lines += _recipes()
    return "\n".join(lines)


def _of_verbs(topic: str) -> str:
    """A key that verbs with keys of their own have, for each of them; "" where none has it."""
    from rfla.cfg.keys import keys_of
    from rfla.cfg.verbs import OPTIONS

    lines: list[str] = []
    for verb, schema in OPTIONS.items():
        key = keys_of(schema).get(topic)
        if key is not None:
            lines += _about(f"{verb} {topic}", key)
    return "\n".join(lines)


def _about(title: str, key: "Key") -> list[str]:
    """What a key is, its kind and its default, a line each."""
    from rfla.cfg.keys import show

    return [
        *_hanging(f"{title}: ", key.description, 2),
        *_hanging("  kind     ", key.kind, 11),
        *_hanging("  default  ", show(key.default, 200), 11),
    ]


def _recipes() -> list[str]:
    """Every recipe: what it is for, and what it sets."""
    from rfla.cfg.keys import show
    from rfla.cfg.recipes import RECIPES

    lines = []
    for name, recipe in RECIPES.items():
        lines += ["", *_hanging(f"  recipe={name}: ", recipe.about, 4)]
        text = " ".join(f"{key}={show(value)}" for key, value in recipe.settings.items())
        lines += textwrap.wrap(text, _width(), initial_indent="    ", subsequent_indent="    ")
    return lines


def _verb(verb: str) -> str:
    about = VERBS[verb]
    lines = _hanging(f"rfla {verb}: ", about.line, 4)
    if about.text:
        lines.append(textwrap.fill(about.text, _width()))
    lines += ["", *(f"  {example}" for example in about.examples)]
    return "\n".join([*lines, *_keys_of_verb(verb)])


def _keys_of_verb(verb: str) -> list[str]:
    """The keys that a verb uses, with headings; none for the verbs without keys."""
    from rfla.cfg.keys import keys_of, sections_of
    from rfla.cfg.keys_used import keys_used
    from rfla.cfg.schema import Config, Mode
    from rfla.cfg.verbs import OPTIONS

    if verb in OPTIONS:
        own = [key for key in keys_of(OPTIONS[verb]).values() if not key.section]
        return ["", "Keys:", *_rows(own)]
    lines: list[str] = []
    if verb in ("train", "val", "predict"):
        for title, keys in keys_used(cast(Mode, verb)):
            lines += ["", f"{title}:", *_rows(keys, verb)]
        sections = sections_of(Config) if verb == "train" else ["test"]
        names = " ".join(f"{name}.*" for name in sections)
        lines += ["", *_hanging("Sections ('rfla help SECTION'): ", names, 2)]
        lines += _hanging("cfg=FILE reads settings from a YAML ", "(rfla copy-cfg)", 2)
    return lines


def _rows(keys: Iterable["Key"], verb: str = "") -> list[str]:
    from rfla.cfg.keys import show

    rows = []
    for key in keys:
        value, text = show(key.default, _LONGEST), key.description
        if value != (whole := show(key.default, 200)):
            value, text = "", f"{text}; left out: {whole.strip('[]').replace(',', ', ')}"
        own_value, own_text = _OF_VERB.get(verb, {}).get(key.name, ("", ""))
        rows.append((key.name, own_value or value, own_text or text))
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    lines: list[str] = []
    for name, value, text in rows:
        head = f"  {name:<{name_width}}  {value:<{value_width}}  "
        lines += _hanging(head, text, len(head))
    return lines


def _width() -> int:
    """Columns of the terminal, within what reads well; 80 where there is none."""
    return max(60, min(shutil.get_terminal_size().columns, 100))


def _hanging(head: str, text: str, indent: int) -> list[str]:
    """Return `head` and `text` in lines of at most `_width()`, the further ones indented."""
    return textwrap.wrap(
        text,
        _width(),
        initial_indent=head,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    ) or [head.rstrip()]
