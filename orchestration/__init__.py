"""Thin Dagster assets, checks, partitions, schedules and resources over `multitron_core` and `serving`."""

import os
import warnings

import dagster as dg

# Set before torch is imported: by default idle OpenMP threads spin, and take cores from the server, Dagster and other
# steps on the same machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Partitioned checks, dimension mappings and single-run backfills are marked beta. The lock file pins the version that
# they were tested with, so the warnings on every import carry no information.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
