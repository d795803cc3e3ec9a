"""The work of a shop, without Dagster: a model, a night, and the tables between the nights.

Assets and the command line call the same functions; each returns a frozen dataclass or a path. Names are imported on
first use, so that a process that only loads Dagster's definitions does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.lifecycle.model import (
        LiveFront,
        MeasuredFront,
        deploy_model,
        measure_live_front,
        measure_model,
        prepare_training,
        preset_of,
        report_on,
        train_model,
    )
    from orchestration.lifecycle.night import (
        NightAssortment,
        NightSessions,
        WrittenLists,
        prepare_night_assortment,
        prepare_night_sessions,
        write_fallback_list,
        write_item_lists,
        write_session_lists,
    )
    from orchestration.lifecycle.tables import AppliedRetention, UpdatedChannels, apply_shop_retention, update_channels
    from orchestration.lifecycle.torchrun import train_in_processes

_FILES = {
    "model": (
        *("LiveFront", "MeasuredFront", "deploy_model", "measure_live_front", "measure_model", "prepare_training"),
        *("preset_of", "report_on", "train_model"),
    ),
    "night": (
        *("NightAssortment", "NightSessions", "WrittenLists", "prepare_night_assortment", "prepare_night_sessions"),
        *("write_fallback_list", "write_item_lists", "write_session_lists"),
    ),
    "tables": ("AppliedRetention", "UpdatedChannels", "apply_shop_retention", "update_channels"),
    "torchrun": ("train_in_processes",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "AppliedRetention",
    "LiveFront",
    "MeasuredFront",
    "NightAssortment",
    "NightSessions",
    "UpdatedChannels",
    "WrittenLists",
    "apply_shop_retention",
    "deploy_model",
    "measure_live_front",
    "measure_model",
    "prepare_night_assortment",
    "prepare_night_sessions",
    "prepare_training",
    "preset_of",
    "report_on",
    "train_in_processes",
    "train_model",
    "update_channels",
    "write_fallback_list",
    "write_item_lists",
    "write_session_lists",
]


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)
