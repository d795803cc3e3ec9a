"""Write a new shop's shop.toml, each setting with its explanation."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.settings import Settings


def write_shop(home: Path | str, settings: Settings) -> Path:
    """Write `settings` as a commented shop.toml, atomically.

    Returns:
        The path of the file.
    """
    path = Path(home) / "shop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as new:
        new.write_text(_as_toml(settings))
    return path


_EXPLANATIONS = {
    "source": "Where the raw events are and how they are written.",
    "calendar": "The days that have partitions; without last_day the calendar grows with time.",
    "sessions": "split_days: the test days of training. state_days: sessions of the last so many days are scored.",
    "model": "The preset, and what differs from it in [model.training].",
    "scoring": "A partition a night for each pi (the weight on orders); the lists: their length, what may be in them.",
    "night": "Hours after the day's end (UTC): begins, is late; days outside first_night to last_night are not scored.",
    "triton": "gRPC host:port of running servers; none: each step starts its own on loopback.",
    "ingestion": "Against a usual day: a day beyond these fails its checks. max_share: of bad lines.",
    "quality": "Against the night before: a night beyond these is not published.",
    "tables": "root: where the tables are, none: lake/ here. keep_days: older nights are deleted.",
    "owners": "Who answers for each group of assets: an email address or team:<name>.",
    "code": "repository: https://<host>/<owner>/<name> for links from the assets; none: the files of this machine.",
    "channels": "Who reads which table at which pi, a section [channels.<name>] each.",
}


def _as_toml(settings: Settings) -> str:
    lines = ["# The settings of this shop. `make demo` wrote them once; change what you like."]
    for section, values in settings.model_dump(exclude_none=True).items():
        lines += ["", f"# {_EXPLANATIONS[section]}", f"[{section}]"]
        tables = {name: value for name, value in values.items() if isinstance(value, dict)}
        lines += [f"{name} = {_value(value)}" for name, value in values.items() if name not in tables]
        for name, table in tables.items():
            if table:
                lines += ["", f"[{section}.{name}]", *[f"{key} = {_value(value)}" for key, value in table.items()]]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)  # TOML's strings, numbers and booleans are JSON's
