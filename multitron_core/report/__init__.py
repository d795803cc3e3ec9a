"""The report of a trained model as one self-contained HTML file.

    python -m multitron_core.report --model MODEL --sessions SESSIONS [--out report.html]

The report shows the Pareto front beside the paper's fronts, metrics by preference with the best baseline, an input
ablation at the operating point, example sessions, training curves, the data and the settings. The file loads no
script, font or other resource, so it can be sent by mail and archived.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multitron_core.report.contents import Contents, measure
from multitron_core.report.page import page
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.utils.atomic_file import atomic_file

__all__ = ["FILE_NAME", "Contents", "measure", "page", "write_report"]

FILE_NAME = "report.html"


def write_report(
    model_dir: Path | str,
    prepared: PreparedSessions,
    out: Path | str | None = None,
    *,
    objective: str = "order_density",
    max_click_recall_loss: float = 0.02,
    progress: Callable[[str], None] = lambda doing: None,
) -> Path:
    """Measure a trained model and write its report.

    Args:
        model_dir: Model folder. A front and baselines that are measured here are saved in it.
        prepared: Sessions that the model was trained on, with their test split.
        out: Path of the report, by default `report.html` in the model folder. An existing file is replaced atomically.
        objective, max_click_recall_loss: Constraint for the operating point, see `choose_operating_point`.
        progress: Called with a description of each step that starts.

    Returns:
        The path of the report.

    Raises:
        InputError: `model_dir` is not a model folder or not of clicks and orders, the sessions use another vocabulary,
            the objective is unknown, or the front has no eligible point.
    """
    path = Path(out) if out is not None else Path(model_dir) / FILE_NAME
    contents = measure(
        model_dir, prepared, objective=objective, max_click_recall_loss=max_click_recall_loss, progress=progress
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as new:
        new.write_text(page(contents), encoding="utf-8")
    return path
