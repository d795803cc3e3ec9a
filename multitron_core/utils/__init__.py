"""General helpers without any knowledge of shops, tables or models.

Import each helper from its module. This package imports none of them, because some need torch (`parallel`, `topk`) and
most users of the others must start without it.

- `atomic_file`, `atomic_folder`: replace a file or folder so that readers find the old or the new one, complete.
- `file_lock`: exclusive lock between processes.
- `library_errors`: translate errors of the operating system, delta-rs and polars into the project's exceptions.
- `parallel`, `prefetch`: threads that preserve the order of their results.
- `ragged`: arrays of consecutive runs of rows.
- `redaction`: remove secrets from text.
- `settings`: typed settings from and to JSON.
- `temporary_folder`: temporary folders that are cleaned up after a killed process.
- `text_table`: a data frame as text.
- `topk`: exact top-k of matrix products.
"""

__all__: list[str] = []
