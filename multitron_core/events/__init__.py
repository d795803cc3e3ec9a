"""Raw events: read files of any known format, reject bad lines with reasons, ingest days into the lake."""

from multitron_core.events.read import read_events

__all__ = [
    "read_events",
]
