"""The sessions that a night scores."""

from __future__ import annotations

import datetime as dt
import json

from multitron_core.errors import UnavailableError
from multitron_core.sessions.encoded import EncodedSessions
from orchestration.shop.deployed import live_model
from orchestration.shop.home import Shop


def night_sessions(shop: Shop, day: dt.date) -> EncodedSessions:
    """The encoded sessions of a night.

    Raises:
        UnavailableError: they have not been prepared; they may be on their way.
    """
    folder = shop.scoring_sessions(day)
    if not folder.exists():
        raise UnavailableError(
            "the night's sessions are not prepared",
            where=folder,
            hint=f"materialize `scoring_sessions` of {day}, then this partition",
        )
    return EncodedSessions.load(folder)


def prepared_sessions(shop: Shop, day: dt.date, events: str | None) -> int | None:
    """How many sessions a night has from these events, with the live vocabulary; None where they are to be prepared.

    Args:
        shop: the shop.
        day: the run date.
        events: `events_fingerprint`.

    Raises:
        InputError: no model is deployed.
    """
    folder = shop.scoring_sessions(day)
    try:
        prepared = json.loads((folder / "made_from.json").read_text())
    except (OSError, ValueError):
        return None
    wanted = {"events": events, "vocabulary_hash": live_model(shop).vocabulary_hash}
    return int(prepared["sessions"]) if {name: prepared.get(name) for name in wanted} == wanted else None
