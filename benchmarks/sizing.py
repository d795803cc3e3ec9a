"""Compute the resources of a shop from measured rates: the table of docs/sizing.md.

Reads a file of rates, each with the command that printed it (benchmarks/rates.json). Prints per shop the processor
hours, the machines that score a night within its window, memory and storage. `--json` prints the figures.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATES = Path(__file__).with_name("rates.json")


@dataclass(frozen=True)
class Demand:
    """Size of a shop and of its nights.

    Args:
        name: Name of the shop in the table.
        sessions: Sessions scored per night.
        items: Items of the catalogue.
        events: Events per day.
        preferences: Preferences scored per night.
        k: Items per list.
        window_hours: Hours within which a night must be scored.
        nights: Nights that the tables keep.
    """

    name: str
    sessions: float
    items: float
    events: float
    preferences: int = 5
    k: int = 20
    window_hours: float = 4.0
    nights: int = 30


OTTO = Demand("OTTO's size", sessions=12.9e6, items=1.8e6, events=220e6 / 28)
SHOPS = (OTTO, Demand("a hundred times OTTO's sessions", sessions=1.29e9, items=1.8e6, events=100 * 220e6 / 28))


def sized(demand: Demand, rates: Mapping[str, Mapping[str, Any]]) -> dict[str, float | str]:
    """Compute the resources for a demand.

    Scoring needs one matrix product with the catalogue per session, so its processor time grows with the number of
    items. Reading, encoding and writing do not, but are scaled alike; the result is an upper bound.

    Args:
        demand: Size of the shop.
        rates: Rates by name, each with its `value`, as in rates.json.

    Returns:
        Figures by name, in the order of the table.
    """
    rate = {name: float(each["value"]) for name, each in rates.items()}
    scored = demand.sessions * demand.preferences
    scoring = scored / rate["sessions_a_processor_second"] * (demand.items / rate["items_of_that_catalogue"]) / 3600
    writing = scored * demand.k / 1e6 * rate["writer_seconds_a_million_rows"] / 3600
    ingestion = demand.events / rate["events_a_processor_second"] / 3600
    gigabytes = scored * demand.k / 1e6 * rate["megabytes_a_million_rows"] / 1000
    return {
        "shop": demand.name,
        "rows per night": scored * demand.k,
        "ingestion, processor hours per day": ingestion,
        "scoring, processor hours per night": scoring,
        "writing, hours per night": writing,
        "cores to score within the window": math.ceil(scoring / demand.window_hours),
        "partitions written at once": math.ceil(writing / demand.window_hours),
        "tables per night, GB": gigabytes,
        "tables retained, TB": gigabytes * demand.nights / 1000,
        "training, processor hours per epoch": (
            demand.sessions / rate["sessions_a_training_step"] * rate["processor_seconds_a_training_step"] / 3600
        ),
    }


def as_markdown(found: list[dict[str, float | str]]) -> str:
    """The table of docs/sizing.md: one row per figure, one column per shop."""
    names = [name for name in found[0] if name != "shop"]
    lines = ["| | " + " | ".join(str(each["shop"]) for each in found) + " |", "|---|" + "---|" * len(found)]
    return "\n".join(
        [*lines, *(f"| {name} | " + " | ".join(_figure(each[name]) for each in found) + " |" for name in names)]
    )


def _figure(value: float | str) -> str:
    number = float(value)
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.2g}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, default=RATES, help="file of rates")
    parser.add_argument("--json", action="store_true", help="print the figures instead of the table")
    parser.add_argument("--small", action="store_true", help="accepted as in every benchmark; has no effect")
    arguments = parser.parse_args()
    rates = json.loads(arguments.rates.read_text())
    found = [sized(shop, rates) for shop in SHOPS]
    print(json.dumps(found, indent=1) if arguments.json else as_markdown(found))


if __name__ == "__main__":
    main()
