"""Thin Dagster assets, checks, partitions, schedules and resources over `multitron_core` and `serving`."""

import warnings

import dagster as dg

# Partitioned checks, dimension mappings and single-run backfills are marked beta; the lock file pins the version that
# they were tested with, and a warning an import would bury what matters on the screen.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
