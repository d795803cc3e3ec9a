"""The science and the data of MultiTRON Batch: usable in a notebook without Dagster and Triton."""

import os

# polars' allocator keeps freed memory for ten seconds unless it is told otherwise before polars is imported, and a
# streaming job's peak counts it.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:500,muzzy_decay_ms:0")
