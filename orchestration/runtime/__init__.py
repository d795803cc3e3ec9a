"""How runs execute: partitions, resources, executors, retries, the Dagster instance."""
