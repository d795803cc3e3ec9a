"""The prepared sessions of a night, and whether they are up to date."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from multitron_core.errors import UnavailableError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.utils.atomic_folder import atomic_folder
from orchestration.shop.deployed import live_model
from orchestration.shop.home import Shop

MADE_FROM = "made_from.json"
"""The file in the folder of a night's sessions that records what they were made from."""


def save_night_sessions(shop: Shop, day: dt.date, sessions: EncodedSessions, *, events: str | None) -> Path:
    """Save the encoded sessions of a night with what they were made from; readers see the old folder or the new one.

    Args:
        shop: the shop.
        day: the run date.
        sessions: encoded with the live model's vocabulary.
        events: the fingerprint of the day's events, taken before they were read.

    Returns:
        The folder.
    """
    folder = shop.scoring_sessions(day)
    with atomic_folder(folder) as new:
        sessions.save(new)
        made_from = {"events": events, "vocabulary_hash": sessions.vocabulary_hash, "sessions": len(sessions)}
        (new / MADE_FROM).write_text(json.dumps(made_from))
    return folder


def night_sessions(shop: Shop, day: dt.date) -> EncodedSessions:
    """Load the encoded sessions of a night.

    Raises:
        UnavailableError: the sessions have not been prepared, or their preparation has not ended yet.
    """
    folder = shop.scoring_sessions(day)
    if not folder.exists():
        raise UnavailableError(
            "the sessions of the night have not been prepared",
            where=folder,
            hint=f"materialize `scoring_sessions` of {day}, then this partition",
        )
    return EncodedSessions.load(folder)


def prepared_sessions(shop: Shop, day: dt.date, events: str | None) -> int | None:
    """The number of prepared sessions of a night, if they are up to date.

    Args:
        shop: the shop.
        day: the run date.
        events: the fingerprint of the day's events now, from `sources.events_fingerprint`.

    Returns:
        None if no sessions are prepared, or if they were made from other events or another vocabulary than the live
        model's: they must be prepared (again).

    Raises:
        InputError: no model is deployed.
    """
    folder = shop.scoring_sessions(day)
    try:
        prepared = json.loads((folder / MADE_FROM).read_text())
    except (OSError, ValueError):
        return None
    wanted = {"events": events, "vocabulary_hash": live_model(shop).vocabulary_hash}
    return int(prepared["sessions"]) if {name: prepared.get(name) for name in wanted} == wanted else None
