"""Thin Dagster assets, checks, partitions, schedules and resources over `multitron_core` and `serving`."""

import os
import warnings

import dagster as dg

# Before torch is imported: threads that spin while they wait take the cores from those that work, as soon as the
# server, Dagster and a step share them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Partitioned checks, dimension mappings and single-run backfills are marked beta; the lock file pins the version that
# they were tested with, and a warning an import would bury what matters on the screen.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
