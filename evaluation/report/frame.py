"""What the pages of all reports have in common: their frame, their look, and what was evaluated with which settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from evaluation.report.tables import Contents


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder as HTML; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = lambda number, digits: f"{number:.{digits}f}"
    return environment.get_template(template).render(values)


def framed(contents: Contents, names: Mapping[str, str]) -> dict[str, Any]:
    """What stands on every page: its title, the protocol, the checkpoint, settings and versions.

    Args:
        contents: what `results.json` holds.
        names: what entries of the protocol are called on the page; others go by their own name.
    """
    return {
        "title": f"CCDM on {contents['dataset_file']}",
        "protocol": {names.get(name, name): words for name, words in contents["protocol"].items()},
        "checkpoint": {name.replace("_", " "): value for name, value in contents["checkpoint"].items()},
        "folded": {
            "Settings of the evaluation": flat(contents["settings"]),
            "Settings of the training": flat(contents["training_settings"]),
            "Versions": {**contents["versions"], "device": contents["device"]},
        },
    }


def subject(contents: Contents, model: Contents, time_steps: int) -> str:
    """Images, split, sampler, steps and seeds of the headline, and the weights, in one sentence."""
    settings, sampling = contents["settings"], model["sampling"]
    seeds = settings["seeds"]
    return (
        f"{model['num_images']} images of the {settings['dataset_split']} split; {sampling['sampler']} "
        f"sampler, {sampling['steps'] or time_steps} of {time_steps} steps, {'seed' if len(seeds) == 1 else 'seeds'} "
        f"{', '.join(map(str, seeds))}; weights after {contents['checkpoint']['step']} steps of training."
    )


def flat(settings: Contents, prefix: str = "") -> dict[str, str]:
    """Nested settings as lines, named as on the command line.

    >>> flat({"seed": 0, "optim": {"name": "Adam", "lr_params": {"power": 1.0}}, "class_weights": None})
    {'seed': '0', 'optim.name': 'Adam', 'optim.lr_params.power': '1.0', 'class_weights': 'null'}
    """
    lines: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            lines |= flat(value, f"{prefix}{name}.")
        else:
            lines[prefix + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return lines
