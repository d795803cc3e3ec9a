"""The Dagster code location and the command line of a shop, on top of `multitron_core` and `serving`."""

import os
import warnings

import dagster as dg

# Set before torch is imported: the server, Dagster and a step share the cores, and OpenMP threads that spin while they
# wait would slow down the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Partitioned checks, dimension mappings and single-run backfills are marked beta. The lock file pins the tested version,
# and one warning per import would hide the messages that matter.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
