"""Start-up time of two checkouts: the help of the command line, and loading Dagster's definitions.

    .venv/bin/python benchmarks/startup.py --before <checkout> --after <checkout>

Both run in turn with this command's interpreter, so that a busy machine slows both alike. Processor seconds (user and
system) are compared, since other processes change the wall clock. Without a checkout this one is compared with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "multitron --help": ("-m", "orchestration.cli", "--help"),
    "import orchestration.definitions": ("-c", "import orchestration.definitions"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, default=ROOT, metavar="CHECKOUT", help="default: this checkout")
    parser.add_argument("--after", type=Path, default=ROOT, metavar="CHECKOUT", help="default: this checkout")
    parser.add_argument("--runs", type=int, default=9, help="runs per command and checkout (default: 9)")
    parser.add_argument("--small", action="store_true", help="three runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "after": options.after.resolve()}
    runs = 3 if options.small else options.runs

    print(f"processor seconds, median of {runs} runs in turn\n")
    print(f"{'command':34}{'before':>8}{'after':>8}{'after / before, median of pairs':>34}")
    figures: dict[str, dict[str, float]] = {}
    for name, command in COMMANDS.items():
        seconds: dict[str, list[float]] = {side: [] for side in checkouts}
        for run in range(runs + 1):
            for side, checkout in checkouts.items():
                used = processor_seconds(checkout, command)
                if run:  # the first run compiles modules
                    seconds[side].append(used)
        ratio = statistics.median(b / a for a, b in zip(seconds["before"], seconds["after"], strict=True))
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        figures[name] = {**medians, "ratio": ratio}
        print(f"{name:34}{medians['before']:8.2f}{medians['after']:8.2f}{ratio:34.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0


def processor_seconds(checkout: Path, command: tuple[str, ...]) -> float:
    """User and system seconds of a Python command in a checkout.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=checkout,
        env={**os.environ, **threads, "PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
