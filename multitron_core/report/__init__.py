"""The report of a trained model: one HTML file that holds everything it shows.

    python -m multitron_core.report --model MODEL --sessions SESSIONS [--out report.html]

The front with the paper's beside it, metrics against the preference with the baselines' level, what the chosen
operating point rests on, training curves, lists of real sessions at three preferences, the data, the settings. No
script, no font, no address: it can be sent by mail, and opened in ten years.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from multitron_core.report.contents import Contents, measure
from multitron_core.report.page import page
from multitron_core.sessions.prepare import PreparedSessions

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
    """Measure what a report shows and write it.

    Args:
        model_dir: a model folder; what is measured (front, baselines) is kept there.
        prepared: the sessions that the model was trained on.
        out: the file; `report.html` in the model folder when None. Replaced whole.
        objective, max_click_recall_loss: how the operating point is chosen, see `choose_operating_point`.
        progress: told what is being done.

    Returns:
        The path of the file.

    Raises:
        InputError: not a model folder, sessions of another vocabulary, or a front without a point to choose.
    """
    path = Path(out) if out is not None else Path(model_dir) / FILE_NAME
    contents = measure(
        model_dir, prepared, objective=objective, max_click_recall_loss=max_click_recall_loss, progress=progress
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(page(contents), encoding="utf-8")
    os.replace(beside, path)
    return path
