"""Chaos tests: faults injected into the nights of a small shop, whose tables must equal those of an undisturbed night.

`python -m chaos` (`make chaos`) injects each fault once; `python -m chaos.week` (`make week`) runs seven nights through
the real Dagster daemon.
"""
