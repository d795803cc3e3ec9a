"""Automation of a shop: what runs without a person, and how operators learn about it.

- `jobs`, `schedules`, `sensors`: the Dagster definitions; `orchestration.code_location` puts them together
- `night`, `night_steps`: what a night has, and which runs it needs next
- `run_history`: the runs of a partition, and why a run failed
- `status`: the state of the last nights
- `alerts`: messages to operators
- `rerun_commands`: shell commands for status, alerts and the demo

Import from the modules.
"""
