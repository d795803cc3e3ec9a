"""Train a model: `python -m multitron_core.training --help`."""

from __future__ import annotations

import argparse
import json
import sys

from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.devices import process_group, rank
from multitron_core.training.presets import PRESETS, named
from multitron_core.training.trainer import train
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Train from prepared sessions; print each epoch's metrics as JSON, then the model folder."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.training", description="Train a MultiTRON model.")
    parser.add_argument("--sessions", required=True, help="folder of prepared sessions")
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--preset", default="diginetica", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument(
        "--objectives", nargs="+", metavar="NAME", help="replace the preset's objectives, e.g. click cart order"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--anew", action="store_true", help="train from the start and replace an earlier run")
    parser.add_argument(
        "--model", type=json.loads, default={}, metavar="JSON", help="""model settings, e.g. '{"dimension": 64}'"""
    )
    parser.add_argument(
        "--training", type=json.loads, default={}, metavar="JSON", help="""training settings, e.g. '{"epochs": 3}'"""
    )
    options = parser.parse_args(arguments)
    with process_group(options.device) as device:
        preset = named(options.preset)
        if options.objectives:
            preset = preset.with_objectives(options.objectives)
        folder = train(
            PreparedSessions.load(options.sessions),
            preset.changed(model=options.model, training=options.training),
            options.out,
            resume=not options.anew,
            device=device,
            on_epoch=(lambda row: print(json.dumps(row), flush=True)) if rank() == 0 else None,
        )
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
