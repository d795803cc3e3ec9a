"""Ranking metrics of test sessions, computed exactly over the whole catalogue."""
