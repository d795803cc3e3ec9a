"""Write shop.toml, with an explanation above each section."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.settings import Settings


def write_shop(home: Path | str, settings: Settings) -> Path:
    """Write `settings` as a commented shop.toml, atomically.

    Args:
        home: the shop's home folder, created if it does not exist.
        settings: what to write; settings that are None are left out.

    Returns:
        The path of the file.
    """
    path = Path(home) / "shop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as new:
        new.write_text(_as_toml(settings))
    return path


_EXPLANATIONS = {
    "source": "Location and format of the raw events. A relative path is resolved against the folder of this file.",
    "calendar": "Days that have partitions (UTC). Without last_day the calendar grows every day.",
    "sessions": "split_days: length of the test split. state_days: a night scores the sessions of this many days.",
    "model": "Training preset and deployment gates. Put training settings that differ in [model.training].",
    "scoring": "pi: weights on orders, one partition per night for each. k: items per list.",
    "night": "begins_hours, deadline_hours: hours after the day's end (UTC). Nights: first_night to last_night.",
    "triton": "urls: gRPC host:port of running servers. Without urls each step starts a server on this machine.",
    "ingestion": "Checks of an ingested day. Volumes are relative to a usual day; max_share: share of rejected lines.",
    "quality": "Comparison with the previous night. A night beyond these thresholds is not published.",
    "tables": "root: folder or URL of the tables (default: lake/). Nights older than keep_days are deleted.",
    "owners": "Owner of each asset group: an email address or team:<name>.",
    "code": "repository: https://<host>/<owner>/<name>, for links from the assets. Without it: files on this machine.",
    "channels": "One section [channels.<name>] per reader: its table, its pi or objective, its list length k.",
}
"""Section -> the comment above it."""


def _as_toml(settings: Settings) -> str:
    lines = ["# Settings of this shop. Edit them here; docs/reference.md explains each one."]
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
