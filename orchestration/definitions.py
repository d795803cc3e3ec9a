"""The module that Dagster loads: the definitions of the shop in MULTITRON_HOME, by default `var/demo`."""

from orchestration.code_location import build_definitions
from orchestration.shop.home import shop_or_demo

defs = build_definitions(shop_or_demo())
