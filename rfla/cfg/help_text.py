"""The texts of `rfla help`, `rfla help VERB` and `rfla help KEY`."""

from collections.abc import Iterable

from rfla.errors import ConfigError, did_you_mean

# verb: (one line, longer text, examples)
VERBS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "train": (
        "train a detector",
        "Makes runs/train (then train2, ...) with weights/best.safetensors, results.csv, curves and pictures. Ctrl-C\n"
        "keeps weights/last.safetensors; 'resume=' goes on from there.",
        (
            "rfla train model=fcos_p2 data=demo",
            "rfla train model=faster_rcnn data=aitod assigner=baseline",
            "rfla train model=fcos_p2 data=my.yaml epochs=24 lr_steps=[16,22] batch=4 aug.flipud=0",
            "rfla train model=runs/train/weights/best.safetensors data=my.yaml     (fine-tune)",
            "rfla train resume=runs/train",
        ),
    ),
    "val": (
        "measure a trained detector, or anybody's detections",
        "Prints AP by IoU, size and class under the protocol of the data set. Without model= the latest run's best\n"
        "weights are taken, and named. data= is never guessed.",
        (
            "rfla val data=demo",
            "rfla val model=runs/train/weights/best.safetensors data=aitod split=test",
            "rfla val predictions=detections.json data=aitod split=test",
        ),
    ),
    "predict": (
        "find objects in images",
        "Writes annotated pictures and predictions.json (COCO form). Without model= the latest run's best weights are\n"
        "taken, and named. source= is never guessed: an image, a directory, a pattern in quotes, or a .txt list.",
        (
            "rfla predict source=images/",
            "rfla predict model=best.safetensors source='scenes/*.png' conf=0.3 save_txt",
        ),
    ),
    "compare": (
        "put two runs or prediction files side by side",
        "Shows the difference of each figure with a bootstrap interval over images, and which images changed. A run\n"
        "directory is one that 'rfla val' wrote.",
        ("rfla compare a=runs/val b=runs/val2", "rfla compare a=one.json b=two.json data=my.yaml"),
    ),
    "convert": (
        "bring a data set into COCO or YOLO form, whole or in tiles",
        "Never touches the source. Writes a data.yaml that 'rfla train data=' takes.",
        (
            "rfla convert format=visdrone source=VisDrone2019-DET out=visdrone",
            "rfla convert format=dota source=DOTA out=dota tile=800 overlap=200",
            "rfla convert format=aitod-xview annotations=DIR xview=DIR wo_xview=DIR out=aitod",
        ),
    ),
    "import": (
        "turn official MMDetection weights into a file of rfla",
        "Reads the .pth without ever running its pickle, maps every key, and refuses a partial match.",
        ("rfla import weights=official.pth model=faster_rcnn out=faster_rcnn.safetensors",),
    ),
    "inspect": (
        "check a data set before training on it",
        "Opens every image, checks boxes, ids, duplicates and leakage between splits. The exit code is 0 where\n"
        "training is safe. With model= it also reports who would be positive.",
        (
            "rfla inspect data=my.yaml",
            "rfla inspect data=my.yaml model=fcos_p2 assigner.topk=[5,1]",
        ),
    ),
    "info": (
        "show the size and cost of a model",
        "Parameters, floating point operations, peak memory.",
        ("rfla info model=fcos_p2", "rfla info model=best.safetensors imgsz=1024"),
    ),
    "cfg": (
        "show the settings",
        "Without more: every key with its default. With settings: what a run would use after all layers are merged.",
        ("rfla cfg", "rfla cfg model=fcos_p2 data=aitod lr0=0.01"),
    ),
    "copy-cfg": (
        "write a settings file to start from",
        "Every key is a comment with its default: uncomment what you want to change, and give it as cfg=FILE.",
        ("rfla copy-cfg", "rfla copy-cfg out=my.yaml"),
    ),
    "checks": (
        "check the installation",
        "Versions, devices, and that torchvision's compiled operators really run. Exit code 1 if something is broken.",
        ("rfla checks",),
    ),
    "version": ("print the version", "", ("rfla version",)),
    "help": (
        "explain a verb or a key",
        "",
        ("rfla help", "rfla help train", "rfla help lr0", "rfla help assigner"),
    ),
}

# Headings of the flat keys that matter to a verb, and whether the sections do.
_TOPICS = {
    "train": ("model", "epochs", "optimizer", "split"),
    "val": ("model", "split"),
    "predict": ("model", "split", "source"),
}


def overview() -> str:
    """Return the text of `rfla help`."""
    width = max(len(verb) for verb in VERBS)
    lines = [
        "rfla VERB key=value ...     tiny-object detection by Gaussian receptive field label assignment",
        "",
    ]
    lines += [f"  {verb:<{width}}  {texts[0]}" for verb, texts in VERBS.items()]
    lines += [
        "",
        "Settings are key=value in any order: epochs=24 assigner.topk=[3,1] cos_lr. --key value works too.",
        "The first thing to try:  rfla train model=fcos_p2 data=demo",
        "More:  rfla help VERB, rfla help KEY, rfla cfg (every key with its default)",
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
    if topic not in keys:
        near = did_you_mean(topic, VERBS) or (
            f"; did you mean '{found[0].name}'?" if (found := suggestions(topic, Config)) else ""
        )
        raise ConfigError(f"no verb and no key '{show(topic)}'{near}")
    key = keys[topic]
    lines = [
        f"{key.name}: {key.description}",
        f"  kind     {key.kind}",
        f"  default  {show(key.default, 200)}",
    ]
    return "\n".join(lines)


def _verb(verb: str) -> str:
    line, text, examples = VERBS[verb]
    lines = [
        f"rfla {verb}: {line}",
        *([text] if text else []),
        "",
        *(f"  {example}" for example in examples),
    ]
    if verb in _TOPICS:
        lines += _config_rows(verb)
    else:
        from rfla.cfg.verbs import OPTIONS

        if verb in OPTIONS:
            from rfla.cfg.keys import keys_of

            own = [key for key in keys_of(OPTIONS[verb]).values() if not key.section]
            lines += ["", "Keys:", *_rows(own)]
    return "\n".join(lines)


def _config_rows(verb: str) -> list[str]:
    from rfla.cfg.document import groups
    from rfla.cfg.schema import GROUPS

    wanted = [GROUPS[topic] for topic in _TOPICS[verb]]
    lines: list[str] = []
    sections: list[str] = []
    for section, title, keys in groups():
        if section:
            sections.append(f"{section}.*")
        elif title in wanted:
            lines += ["", f"{title}:", *_rows(keys)]
    return [*lines, "", f"Sections ('rfla help SECTION'): {' '.join(sections)}"]


def _rows(keys: Iterable[object]) -> list[str]:
    from rfla.cfg.keys import Key, show

    rows = [
        (key.name, show(key.default, 24), key.description) for key in keys if isinstance(key, Key)
    ]
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    return [f"  {name:<{name_width}}  {value:<{value_width}}  {text}" for name, value, text in rows]
