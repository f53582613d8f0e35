"""What stories share: a company of its own with a ledger, real workers and a vendor that says what it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.integration.world import World, new_world


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    """A world that keeps a ledger."""
    world = new_world(tmp_path, stack, prefix)
    world.thing = world.name
    project = world.folder / "backbone.toml"
    project.write_text(project.read_text().replace("[contexts.test]\n", '[contexts.test]\nledger = "sqlite:///l.db"\n'))
    try:
        yield world
        for worker in world.workers:
            worker.stop()  # the group of the ledger is shared: who was killed would stay in it for a while
    finally:
        world.close()
