"""A cluster's ACLs against what a worker needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from ops.acls import Binding, standing
from ops.permissions import Permission, Role, permissions

NEEDED = permissions("worker", [], {"crm": ["accounts.users"]})


def given(wanted: list[Permission], principal: str = "User:worker") -> list[Binding]:
    return [Binding(principal, *one[:4], allows=True) for permission in wanted for one in permission.bindings()]


def without(bindings: list[Binding], name: str) -> list[Binding]:
    return [one for one in bindings if one.name != name]


def test_who_has_exactly_what_a_worker_needs_may_run_it() -> None:
    assert standing(NEEDED, given(NEEDED)).allowed == ("User:worker",)


@pytest.mark.parametrize("missing", [one.name for one in NEEDED])
def test_whoever_lacks_one_of_it_may_not_and_is_told_what(missing: str) -> None:
    found = standing(NEEDED, without(given(NEEDED), missing))
    assert found.allowed == ()
    assert found.nearest is not None
    assert found.nearest[0] == "User:worker"
    assert all(missing in one for one in found.nearest[1])


def alike() -> Iterator[tuple[str, list[Binding]]]:
    rest = without(given(NEEDED), "crm")
    everywhere = ("User:worker", "group")
    yield "a prefix", [*rest, Binding(*everywhere, "cr", "prefixed", "Read", allows=True)]
    yield "a wildcard", [*rest, Binding(*everywhere, "*", "literal", "Read", allows=True)]
    yield "all operations", [*rest, Binding(*everywhere, "crm", "literal", "All", allows=True)]
    yield "everybody", [*rest, Binding("User:*", "group", "crm", "literal", "Read", allows=True)]


@pytest.mark.parametrize("bindings", [pytest.param(found, id=how) for how, found in alike()])
def test_it_may_be_given_in_other_words(bindings: list[Binding]) -> None:
    assert "User:worker" in standing(NEEDED, bindings).allowed


def test_a_denial_goes_before_everything_that_is_allowed() -> None:
    denied = Binding("User:worker", "group", "*", "literal", "Read", allows=False)
    found = standing(NEEDED, [*given(NEEDED), denied])
    assert found.nearest == ("User:worker", ("Read on the group crm",))


def test_reading_a_topic_includes_describing_it_and_nothing_includes_reading_it() -> None:
    (describe,) = [one for one in permissions("analyst", [], {}) if one.resource == "group"]
    reads = Binding("User:ana", "group", describe.name, "literal", "Read", allows=True)
    assert standing([describe], [reads]).allowed == ("User:ana",)
    read = Permission("worker", "topic", "t", ("Read",), "")
    assert standing([read], [Binding("User:ana", "topic", "t", "literal", "Describe", allows=True)]).allowed == ()


def test_of_somebody_who_has_nothing_of_it_nothing_is_said() -> None:
    other = Binding("User:shop", "topic", "shop.orders", "literal", "Write", allows=True)
    assert standing(NEEDED, [other]) == standing(NEEDED, [])
    assert standing(NEEDED, []).nearest is None


@pytest.mark.parametrize("role", get_args(Role))
def test_every_role_is_met_by_what_it_is_given(role: Role) -> None:
    wanted = permissions(role, ["accounts.users"], {"crm": ["accounts.users"]})
    assert standing(wanted, given(wanted)).allowed == ("User:worker",)
