"""The order in which ``make test`` runs: it knows every folder, and what takes long comes first."""

from __future__ import annotations

from tests.conftest import ORDER, ROOT, folder_of


def test_every_folder_of_tests_has_its_place_in_the_order() -> None:
    folders = {folder_of(path) for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == set(ORDER)
    assert len(ORDER) == len(set(ORDER))
