"""Thin Dagster assets, checks, partitions, schedules and resources over `multitron_core` and `serving`."""
