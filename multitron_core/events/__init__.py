"""Raw events: files of every known format become one event log, and invalid lines are kept with the reason.

`ingestion` writes the event log into Delta tables, day by day, and `ingestion_checks` checks the result. Both load
deltalake, so import their functions from these modules.
"""

from multitron_core.events.formats import ColumnMapping
from multitron_core.events.read import EventLog, read_events

__all__ = [
    "ColumnMapping",
    "EventLog",
    "read_events",
]
