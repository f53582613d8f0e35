"""The lock files: whole, with hashes, of one mind, and bound to no server."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.lock import differences, pins

LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_locked_with_hashes_and_no_server_is_named(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    options = {line.split("=")[0].strip() for line in text.splitlines() if line.strip().startswith("-")}
    assert options == {"--hash"}
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) > 20
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize(
    ("lock", "extras"), [(LOCKS[0], ["postgres", "local"]), (LOCKS[1], ["postgres", "local", "dev"])]
)
def test_what_pyproject_asks_for_is_locked_in_a_version_that_it_allows(lock: Path, extras: list[str]) -> None:
    locked = {canonical(name): version for name, version in pins(lock.read_text()).items()}
    wanted = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        assert locked[canonical(requirement.name)] in requirement.specifier, requirement


def test_services_and_developers_get_the_same_versions() -> None:
    runtime, dev = (pins(lock.read_text()) for lock in LOCKS)
    assert runtime.items() <= dev.items()


def test_another_version_and_a_missing_package_are_found(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(
        "pytest==0.0.1 \\\n    --hash=sha256:00\nno-such-package==1.0\ncolorama==0.4.6 ; sys_platform == 'win32' \\\n"
    )
    assert differences(lock) == [
        f"pytest is {pytest.__version__} instead of 0.0.1",
        "no-such-package 1.0 is missing",
    ]
