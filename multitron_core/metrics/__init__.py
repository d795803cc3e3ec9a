"""Exact ranking metrics of test sessions, computed over the whole catalogue.

`evaluation_batches` and `step_table` make the steps to evaluate, `step_states` the model's states, `target_ranks` the
ranks and `ranking_metrics` the metrics.
"""

from multitron_core.metrics.ranking import ranking_metrics, score_blocks, target_ranks
from multitron_core.metrics.steps import evaluation_batches, step_states, step_table

__all__ = [
    "evaluation_batches",
    "ranking_metrics",
    "score_blocks",
    "step_states",
    "step_table",
    "target_ranks",
]
