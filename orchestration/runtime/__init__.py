"""How runs execute: partitions, resources, executors, retries, the Dagster instance and runs in this process.

Import from the modules: some of them load torch (`resources`, `in_process_runs`), the others do not.

- `partitions`: partition definitions and the keys of nights
- `resources`: the resource of all assets, `ShopResource`
- `executors`: where steps run, and their queues
- `retries`: which failure is retried, by which layer
- `instance`: the Dagster instance of a shop
- `in_process_runs`: jobs run to completion in this process
- `metadata`: values for the pages of assets and checks
"""
