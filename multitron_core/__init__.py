"""The science and the data of MultiTRON Batch: usable in a notebook with torch and polars alone."""
