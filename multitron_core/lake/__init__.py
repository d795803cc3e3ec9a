"""Delta tables of a shop: contracts, atomic replacement of partitions, publication, channels, retention.

`Lake` is the entry point. It extends `Tables`, on which the functions of the other modules work.
"""

from multitron_core.lake.channels import Channel, load_channels, parse_channels, publish_channels
from multitron_core.lake.contracts import LIST_TABLES, TableContract, table_contracts
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.lake.publication import Publication
from multitron_core.lake.replace_where import RowsCommit
from multitron_core.lake.tables import Tables

__all__ = [
    "LIST_TABLES",
    "Channel",
    "Lake",
    "PartitionCommit",
    "Publication",
    "RowsCommit",
    "TableContract",
    "Tables",
    "load_channels",
    "parse_channels",
    "publish_channels",
    "table_contracts",
]
