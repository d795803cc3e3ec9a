"""The Delta tables: contracts, partitions replaced whole, publication, channels, retention."""

from multitron_core.lake.channels import Channel, load_channels, parse_channels, publish_channels
from multitron_core.lake.contracts import LIST_TABLES, TableContract, contracts
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.lake.publication import Publication
from multitron_core.lake.replace_where import RowsCommit

__all__ = [
    "LIST_TABLES",
    "Channel",
    "Lake",
    "PartitionCommit",
    "Publication",
    "RowsCommit",
    "TableContract",
    "contracts",
    "load_channels",
    "parse_channels",
    "publish_channels",
]
