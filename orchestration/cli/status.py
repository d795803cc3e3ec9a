"""`multitron status`: the state of the nights as text and as JSON.

For cron: `python -m orchestration.cli.status [--home <folder>] [--nights 7] [--json] [--check]` is the same command.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from typing import Any

from orchestration.automation.status import NightStatus, PreferenceStatus, Status

INDENT = " " * 13
"""Indent of the reason and the command below a state."""


def as_text(status: Status) -> str:
    """The status for a person: per night one line, and per group of preferences in the same state its details."""
    lines = [] if status.nights else ["no nights yet"]
    for night in status.nights:
        lines += _night_lines(night)
    if status.standstills:
        lines.append("no night starts automatically")
    for standstill in status.standstills:
        lines.append(f"{INDENT}reason: {standstill.why}")
        labels = ("run:   ", *["or:    "] * len(standstill.commands))
        lines += [f"{INDENT}{label} {text}" for label, text in zip(labels, standstill.commands, strict=False)]
    return "\n".join(lines)


def _night_lines(night: NightStatus) -> list[str]:
    counts = Counter(each.state for each in night.preferences)
    summary = "complete" if night.complete else ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"{night.day}  {summary}  (deadline {night.deadline:%Y-%m-%d %H:%M} UTC)"]
    groups: dict[tuple[Any, ...], list[PreferenceStatus]] = {}
    for each in night.preferences:
        groups.setdefault((each.state, each.why, each.model_version), []).append(each)
    for (state, why, version), group in groups.items():
        pi = " ".join(each.pi for each in group)
        times = [each.published_at for each in group if each.published_at]
        at = f"  {max(times):%m-%d %H:%M}" if state == "published" and times else ""
        lines.append(f"  {state:<9}  pi {pi}{f'  model {version}' if version else ''}{at}")
        if why:
            lines.append(f"{INDENT}reason: {why}")
        lines += [f"{INDENT}re-run: {text}" for text in dict.fromkeys(each.command for each in group) if text]
    return lines


def as_json(status: Status) -> str:
    """The status as one JSON object: the fields of `Status`, and `late`."""
    return json.dumps({**dataclasses.asdict(status), "late": status.late}, default=str, indent=2)


if __name__ == "__main__":
    from orchestration.cli.app import main

    main(["status", *sys.argv[1:]], prog_name="multitron")
