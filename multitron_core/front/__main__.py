"""Measure the Pareto front of a model and print it.

    python -m multitron_core.front --model MODEL --sessions SESSIONS

prints one row per preference, the monotonicity of losses and recalls, their change between the non-dominated ends, the
hypervolumes with bootstrap confidence intervals, and the operating point. `--save` saves the table and its plots in the
model folder, `--record` the operating point.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from multitron_core.front.evaluation import front_preferences, front_table, front_volume
from multitron_core.front.files import model_and_test, save_front
from multitron_core.front.measurement import check_list_length, measure_front
from multitron_core.front.summary import front_text
from multitron_core.model.description import ModelDescription
from multitron_core.preference.operating_point import choose_operating_point, record_operating_point
from multitron_core.training.devices import pick_device
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Print a front."""
    parser = argparse.ArgumentParser(
        prog="python -m multitron_core.front", description="Measure the Pareto front of a model."
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument(
        "--sessions", type=Path, required=True, help="folder of prepared sessions; the test split is measured"
    )
    parser.add_argument(
        "--points", type=int, default=26, help="minimum number of preferences; three objectives use a lattice"
    )
    parser.add_argument("--spacing", choices=("beta", "square"), default="beta", help="spacing of the preferences")
    parser.add_argument("--k", type=int, default=20, help="list length of the metrics")
    parser.add_argument(
        "--click-loss", choices=("sampled", "exact"), default="sampled", help="sampled negatives or the whole catalogue"
    )
    parser.add_argument("--repeats", type=int, default=1, help="number of draws of negatives")
    parser.add_argument("--seed", type=int, default=1, help="seed of the negatives and of the bootstrap")
    parser.add_argument(
        "--reference", type=float, nargs="+", help="reference point of the raw hypervolume, one loss per objective"
    )
    parser.add_argument(
        "--whole-sessions",
        action="store_true",
        help="evaluate whole sessions as the official code does: positions that count from the end then reveal how "
        "many clicks follow a step",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--objective", default="order_density", help="column of the front that the operating point optimises"
    )
    parser.add_argument(
        "--max-click-recall-loss", type=float, default=0.02, help="largest click recall loss of the operating point"
    )
    parser.add_argument("--record", metavar="NAME", help="record the operating point in the model folder as NAME")
    parser.add_argument("--save", action="store_true", help="save the table and its plots in the model folder")
    given = parser.parse_args(arguments)
    check_list_length(given.k)  # before what takes minutes
    model, config, test = model_and_test(given.model, given.sessions, pick_device(given.device))
    measurement = measure_front(
        model,
        test,
        front_preferences(model, given.points, spacing=given.spacing, beta=config.data.beta),
        config=config,
        click_loss_mode=given.click_loss,
        repeats=given.repeats,
        seed=given.seed,
        whole_sessions=given.whole_sessions,
    )
    front = front_table(measurement, k=given.k)
    volume = front_volume(measurement, reference=given.reference, seed=given.seed)
    point = choose_operating_point(
        front, given.objective, given.max_click_recall_loss, click_recall=f"click_recall_{given.k}"
    )
    text = front_text(measurement, front, volume, point, k=given.k, seed=given.seed)
    if given.save:
        save_front(front, volume, given.model)
    if given.record:
        version = ModelDescription.read(given.model).version
        record_operating_point(point, given.model, name=given.record, model_version=version)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
