"""The keys by topic, and which of them train, val and predict use."""

from collections.abc import Iterable, Iterator

from rfla.cfg.keys import Key, keys_of, sections_of
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.schema import GROUPS, Config, Mode

# The groups of keys (by their first key, as in `GROUPS`) that a verb uses, and single keys of
# other groups.
_GROUPS: dict[Mode, tuple[str, ...]] = {
    "train": ("model", "epochs", "optimizer", "split", "conf"),
    "val": ("split", "conf"),
    "predict": ("conf", "source"),
}
_EVERYWHERE = (
    *("model", "imgsz", "batch", "device", "amp", "max_pixels", "project", "name", "exist_ok"),
    *("timeout", "verbose", "gsd"),
    "debug",
)
_SINGLE: dict[Mode, tuple[str, ...]] = {
    "train": (),
    "val": (
        *("data", "workers", "cache", "fraction", "single_cls", "plots", "gallery"),
        *("slice", "overlap", "merge", "merge_metric", "merge_classes", "tta"),
    ),
    "predict": ("resume",),
}
# Keys of a group that one of its verbs has no use for.
_NOT: dict[Mode, tuple[str, ...]] = {
    "train": ("predictions", "save_json", "engine"),
    "val": (),
    "predict": (),
}

# What `val` reads where detections are given: no network runs.
_OF_GIVEN_DETECTIONS = frozenset(
    {
        *("data", "split", "predictions", "protocol", "engine", "save_json", "fraction"),
        *("single_cls", "project", "name", "exist_ok", "plots", "gallery", "max_pixels"),
        *("verbose", "debug"),
    }
)

# Keys of the model that some architectures alone read; a name with a dot at its end is a section.
_TWO_STAGES = ("faster_rcnn", "cascade_rcnn", "detectors")
_SCORED_BY_FOCAL = ("fcos", "rfd", "retinanet")
_DENSE = (*_SCORED_BY_FOCAL, "autoassign")
_ANCHORS = ("retinanet", *_TWO_STAGES)
_OF_DETECTORS: dict[str, tuple[str, ...]] = {
    "anchors.": _ANCHORS,
    "assigner.allowed_border": _ANCHORS,
    "assigner.center_radius": ("fcos", "rfd"),
    "head.depth": _DENSE,
    "head.norm": _DENSE,
    "head.second_look": ("rfd",),
    "loss.box": _DENSE,
    "loss.box_weight": _DENSE,
    "loss.centerness": ("fcos", "rfd"),
    "loss.centerness_weight": ("fcos",),
    "loss.coding": ("fcos", "autoassign"),
    "loss.look_weight": ("rfd",),
    "loss.side_weight": ("fcos", "rfd"),
    "loss.weighting": ("fcos", "rfd"),
    "loss.": _SCORED_BY_FOCAL,
    "neck.relu_before_extra": (*_DENSE, "faster_rcnn", "cascade_rcnn"),
    "neck.steps": ("detectors",),
    "roi.": _TWO_STAGES,
    "rpn.": _TWO_STAGES,
}

# Keys of the assigner that one rule alone follows.
_OF_RULES: dict[str, str] = {
    "assigner.atss_topk": "atss",
    "assigner.center_radius": "baseline",
    "assigner.centers_inside": "rfla",
    "assigner.conflict": "rfla",
    "assigner.decay": "rfla",
    "assigner.distance": "rfla",
    "assigner.ignore_above": "rfla",
    "assigner.topk": "rfla",
}


def groups() -> Iterator[tuple[str, str, list[Key]]]:
    """Yield (section name, heading, keys): first the flat keys by topic, without a section name."""
    keys = keys_of(Config)
    flat: dict[str, list[Key]] = {}
    title = ""
    for key in keys.values():
        if not key.section:
            title = GROUPS.get(key.name, title)
            flat.setdefault(title, []).append(key)
    for title in GROUPS.values():
        yield "", title, flat[title]
    for name, description in sections_of(Config).items():
        yield name, description, [key for key in keys.values() if key.section == name]


def keys_used(verb: Mode) -> Iterator[tuple[str, list[Key]]]:
    """Yield (heading, flat keys) that a verb uses, in the order of the schema."""
    wanted = [GROUPS[first] for first in _GROUPS[verb]]
    single = {*_EVERYWHERE, *_SINGLE[verb]}
    for section, title, keys in groups():
        used = [
            key
            for key in keys
            if not section
            and (title in wanted or key.name in single)
            and key.name not in _NOT[verb]
        ]
        if used:
            yield title, used


def readers(key: str, detectors: Iterable[str]) -> list[str]:
    """Return those of `detectors` that read a key; one that was added is taken to read all."""
    alone = _OF_DETECTORS.get(key, _OF_DETECTORS.get(f"{key.partition('.')[0]}."))
    others = {*_DENSE, *_TWO_STAGES}.difference(alone or (*_DENSE, *_TWO_STAGES))
    return [detector for detector in detectors if detector not in others]


def unused(given: Iterable[str], verb: Mode, model: ModelConfig | Config) -> list[str]:
    """Return the given keys that a verb, the architecture or the assigner has no use for, sorted.

    The sections of the model count as used by all verbs: they describe the network.
    """
    used = {key.name for _, keys in keys_used(verb) for key in keys}
    used |= keys_of(ModelConfig).keys()
    if verb == "train":
        used |= {name for name in keys_of(Config) if name.startswith("aug.")}
        if isinstance(model, Config):
            used -= {"lr_steps", "lr_gamma"} if model.cos_lr else {"lrf"}
    else:
        used -= {"backbone.weights"}  # what a new backbone starts from
    if verb == "val" and isinstance(model, Config) and model.predictions is not None:
        used &= _OF_GIVEN_DETECTIONS
    rule = model.assigner.name
    for section in ("rpn", "roi"):
        if getattr(model, section).box_loss != "smooth_l1":
            used -= {f"{section}.beta"}
    return sorted(
        key
        for key in given
        if key not in used or not readers(key, [model.detector]) or _OF_RULES.get(key, rule) != rule
    )
