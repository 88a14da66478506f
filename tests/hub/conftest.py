"""Both hubs on this machine, filled, and a place that downloads from one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hubs, serve
from hub_world import World, fill, patch

from prism_ae.hub.selection import HubName


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    hubs = Hubs()
    fill(hubs)
    with serve(hubs):
        yield hubs


@pytest.fixture(params=["modelscope", "huggingface"])
def world(request: pytest.FixtureRequest, hubs: Hubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    patch(monkeypatch, hubs, tmp_path)
    hub: HubName = request.param
    return World(hubs, tmp_path / "models", hub)
