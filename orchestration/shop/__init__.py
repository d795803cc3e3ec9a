"""A shop: its home folder, its settings (shop.toml), and the facts that follow from them.

Assets, the command line and scripts of other teams read a shop the same way: `load_shop(home)`, then `shop.lake()` for
its Delta tables. Facts that depend on files, tables or the deployed model have a module each: `sources`, `calendar`,
`models`, `deployed`, `night_sessions` and `assortment`.
"""

from orchestration.shop.home import DEMO_HOME, HOME_VARIABLE, Shop, load_shop, shop_or_demo
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop

__all__ = [
    "DEMO_HOME",
    "HOME_VARIABLE",
    "Settings",
    "Shop",
    "demo_settings",
    "load_shop",
    "shop_or_demo",
    "write_shop",
]
