from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from connectors.connector import Connector, ConnectorType
from tests.connectors.samples import FakeControl

OpenFaked = Callable[..., Awaitable[tuple[Connector, FakeControl]]]


@pytest.fixture
async def open_faked(tmp_path: Path) -> AsyncIterator[OpenFaked]:
    """Start the fake of a connector type and open a connector on it; further arguments are settings."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def opened(connector_type: ConnectorType, **settings: object) -> tuple[Connector, FakeControl]:
        assert connector_type.fake is not None
        fake = connector_type.fake()
        url = await fake.start()
        table = {**connector_type.fake_settings(url, tmp_path), "timeout_s": 5.0, **settings}
        connector = connector_type.open(connector_type.settings(**table))
        control = FakeControl(url)
        closing.extend([fake.stop, connector.close, control.close])
        return connector, control

    yield opened
    for close in reversed(closing):
        await close()
