"""`multitron status`: the state of nights and schedules as text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from typing import Any

from multitron_core.errors import MultitronError
from multitron_core.utils.redaction import redacted
from orchestration.automation.status import PreferenceStatus, Status, status
from orchestration.runtime.instance import instance_of
from orchestration.shop.home import HOME_VARIABLE, load_shop


def as_text(told: Status) -> str:
    """The status as a person reads it."""
    lines = [] if told.nights else ["there is no night yet"]
    for night in told.nights:
        states = Counter(each.state for each in night.preferences)
        summary = "complete" if night.complete else ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(f"{night.day}  {summary}  (deadline {night.deadline:%Y-%m-%d %H:%M} UTC)")
        groups: dict[tuple[Any, ...], list[PreferenceStatus]] = {}
        for each in night.preferences:
            groups.setdefault((each.state, each.why, each.model_version), []).append(each)
        for (state, why, version), same in groups.items():
            pi = " ".join(each.pi for each in same)
            times = [each.published_at for each in same if each.published_at]
            at = f"  {max(times):%m-%d %H:%M}" if state == "published" and times else ""
            lines.append(f"  {state:<9}  pi {pi}{f'  model {version}' if version else ''}{at}")
            if why:
                lines.append(f"             why: {why}")
            lines += [
                f"             do:  {command}" for command in dict.fromkeys(each.command for each in same) if command
            ]
    if told.standstills:
        lines.append("no night starts by itself")
    for standstill in told.standstills:
        lines.append(f"             why: {standstill.why}")
        words = ("do: ", *["or: "] * len(standstill.commands))
        lines += [f"             {word} {command}" for word, command in zip(words, standstill.commands, strict=False)]
    return "\n".join(lines)


def as_json(told: Status) -> str:
    """The status as one JSON object."""
    return json.dumps({**dataclasses.asdict(told), "late": told.late}, default=str, indent=2)


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit status 0, with --check 1 when a night is late, failed or not to start, 2 for an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m orchestration.status"
    )
    parser.add_argument("--home", help=f"the shop's home folder; default ${HOME_VARIABLE}, or var/demo")
    parser.add_argument("--nights", type=int, default=7, help="how many nights, the newest first")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a night is late or failed, or none starts: for cron"
    )
    given = parser.parse_args(arguments)
    try:
        shop = load_shop(given.home)
        with instance_of(shop) as instance:
            told = status(shop, instance, nights=given.nights)
    except MultitronError as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    print(as_json(told) if given.json else as_text(told))
    return 1 if given.check and (told.late or told.standstills) else 0


if __name__ == "__main__":
    sys.exit(main())
