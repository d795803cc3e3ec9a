"""Train a model: `python -m multitron_core.training --help`."""

from __future__ import annotations

import argparse
import json
import sys

from multitron_core.errors import MultitronError
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.devices import process_group, rank
from multitron_core.training.presets import PRESETS, named
from multitron_core.training.trainer import train


def main(arguments: list[str] | None = None) -> int:
    """Train from prepared sessions; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.training", description="Train a MultiTRON.")
    parser.add_argument("--sessions", required=True, help="folder of prepared sessions")
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--preset", default="diginetica", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument(
        "--objectives", nargs="+", metavar="NAME", help="instead of the preset's, e.g. click cart order"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--anew", action="store_true", help="replace what an earlier run left")
    parser.add_argument(
        "--model", type=json.loads, default={}, metavar="JSON", help="""model settings, e.g. '{"dimension": 64}'"""
    )
    parser.add_argument(
        "--training", type=json.loads, default={}, metavar="JSON", help="""training settings, e.g. '{"epochs": 3}'"""
    )
    options = parser.parse_args(arguments)
    try:
        with process_group(options.device) as device:
            chosen = named(options.preset)
            if options.objectives:
                chosen = chosen.with_objectives(options.objectives)
            folder = train(
                PreparedSessions.load(options.sessions),
                chosen.changed(model=options.model, training=options.training),
                options.out,
                resume=not options.anew,
                device=device,
                on_epoch=(lambda row: print(json.dumps(row), flush=True)) if rank() == 0 else None,
            )
    except MultitronError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
