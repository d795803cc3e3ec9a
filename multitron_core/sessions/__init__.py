"""Sessions: an event log becomes encoded sessions for training and scoring, a vocabulary, statistics and batches."""

from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.sessions.scoring import encode_sessions
from multitron_core.sessions.vocabulary import Vocabulary

__all__ = [
    "EncodedSessions",
    "PreparedSessions",
    "Vocabulary",
    "encode_sessions",
    "prepare_sessions",
]
