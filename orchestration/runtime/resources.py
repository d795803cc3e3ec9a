"""What assets need from outside: the shop, its tables, its scorer."""

from __future__ import annotations

from contextlib import AbstractContextManager

import dagster as dg

from multitron_core.lake.lake import Lake
from orchestration.shop.home import Shop, load_shop
from serving.in_process import InProcessServer
from serving.server import TritonServer


class ShopResource(dg.ConfigurableResource):
    """The shop whose assets these are.

    Args:
        home: the home folder, with its shop.toml.
    """

    home: str

    def load(self) -> Shop:
        """The shop; its settings are read anew at each step. Partitions (calendar, pi) and schedules are made when the
        code location loads: a change of those needs a reload in the UI.
        """
        return load_shop(self.home)

    def lake(self) -> Lake:
        """The Delta tables of the shop."""
        return self.load().tables()

    def server(self) -> AbstractContextManager[TritonServer | InProcessServer]:
        """Who answers scoring requests, as the settings say: a server by URL, a server of our own, or this process."""
        shop = self.load()
        if shop.scores_in_process:
            return InProcessServer(shop.triton_repository)
        return triton_server(shop)


def triton_server(shop: Shop) -> TritonServer:
    """The servers of the shop's settings, or one of our own; with the times that the settings allow."""
    return TritonServer(
        repository=shop.triton_repository,
        urls=shop.triton_urls,
        request_timeout=shop.settings.triton.timeout_seconds,
        start_timeout=shop.settings.triton.ready_seconds,
    )
