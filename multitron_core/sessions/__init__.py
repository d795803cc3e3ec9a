"""Sessions: events become encoded sessions, a vocabulary, statistics and batches."""

from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.sessions.vocabulary import Vocabulary

__all__ = [
    "EncodedSessions",
    "PreparedSessions",
    "Vocabulary",
    "prepare_sessions",
]
