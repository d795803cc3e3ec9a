"""The Dagster resource of all assets: the shop and its scoring server."""

from __future__ import annotations

from contextlib import AbstractContextManager

import dagster as dg

from orchestration.shop.home import Shop, load_shop
from serving.interface import Server
from serving.server import TritonServer


class ShopResource(dg.ConfigurableResource):
    """The shop that the assets belong to.

    Args:
        home: the shop's home folder, which contains shop.toml.
    """

    home: str

    def load(self) -> Shop:
        """Read the shop, with its current settings; each step calls this once.

        Partitions (calendar, pi) and schedules are built when the code location loads: to change those, reload the
        code location in the UI.
        """
        return load_shop(self.home)

    def server(self) -> AbstractContextManager[Server]:
        """The scoring server of [triton]: servers by URL, a server that this step starts, or this process."""
        shop = self.load()
        if shop.scores_in_process:
            from serving.in_process import InProcessServer  # loads torch, which scoring by Triton does not need

            return InProcessServer(shop.triton_repository)
        return triton_server(shop)


def triton_server(shop: Shop) -> TritonServer:
    """The Triton servers at the shop's URLs, or a new one on this machine, with the time limits of [triton]."""
    return TritonServer(
        repository=shop.triton_repository,
        urls=shop.triton_urls,
        request_timeout=shop.settings.triton.timeout_seconds,
        start_timeout=shop.settings.triton.ready_seconds,
    )
