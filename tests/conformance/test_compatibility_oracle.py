"""Our judgement of hundreds of generated changes beside that of a real registry, in every mode.

The registry (Apicurio, with Apache's Java library) is the oracle. Where the two differ it is on purpose, for a reason
that stands below, and every such reason is met in the run: none is here for a difference that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import pytest

from schemas.compatibility import MODES, Incompatibility, compatible
from schemas.registry import open_registry
from tests.conftest import Stack
from tests.schemas.evolutions import MUTATIONS, evolved, schema

SUBJECTS = 50
"""Each has two registered versions."""
CANDIDATES = 6
"""So many schemas would follow them; each is asked about backward and forward, the first in every other mode too."""
SEED = 5


@dataclass(frozen=True, slots=True)
class Change:
    """Two versions one after the other, and the schema that is to follow them."""

    subject: str
    olds: tuple[Any, Any]
    new: Any
    mutations: tuple[str, ...]
    in_every_mode: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """One question and both answers. ``stored``: the versions as the registry keeps them."""

    change: Change
    mode: str
    stored: tuple[Any, ...]
    ours: tuple[Incompatibility, ...]
    accepts: bool


def _other_meaning(one: Judged) -> bool:
    return one.accepts and {reason.kind for reason in one.ours} == {"meaning"}


def _no_new_version(one: Judged) -> bool:
    return len(one.stored) < 2 and one.accepts == (not compatible(one.change.new, one.stored, one.mode))


REASONS: dict[str, Callable[[Judged], bool]] = {
    # The specification leaves logical types out of schema resolution, so timestamp-micros reads timestamp-millis: the
    # same number, a thousand times too large, without an error. We refuse what would be read wrong in silence.
    "another meaning of the same bytes is refused by us alone": _other_meaning,
    # An enum's default is in no canonical form, and Apicurio answers the version before instead of making a new one:
    # it judges by what it has kept. With those versions our judgement is the same.
    "a version that differs only in an enum's default is not kept by the registry": _no_new_version,
}


def changes(prefix: str) -> list[Change]:
    found = []
    for number in range(SUBJECTS):
        chance = Random(f"{SEED}-{number}")
        space = f"{prefix}.n{number}"
        first = schema(space, chance)
        second, before = evolved(first, chance, 1)
        for candidate in range(CANDIDATES):
            new, since = evolved(second, chance, chance.randint(1, 2))
            found.append(
                Change(f"{prefix}-{space}.Thing", (first, second), new, (*before, *since), in_every_mode=not candidate)
            )
    return found


class Oracle:
    """The registry asked over connections that stay open, from a few threads."""

    def __init__(self, url: str) -> None:
        import urllib3

        self._url, self._pool = url, urllib3.PoolManager(maxsize=4)
        self._threads = ThreadPoolExecutor(4)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._pool.request(
            method,
            self._url + path,
            body=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/vnd.schemaregistry.v1+json"},
        )
        assert answer.status == 200, answer.data
        return answer.json()

    def each(self, work: Callable[[Change], Any], given: Sequence[Change]) -> list[Any]:
        return list(self._threads.map(work, given))

    def register(self, change: Change) -> tuple[Any, ...]:
        """Register both versions; what is kept of them."""
        for old in change.olds:
            self.ask("POST", f"/subjects/{change.subject}/versions", {"schema": json.dumps(old)})
        versions = self.ask("GET", f"/subjects/{change.subject}/versions")
        return change.olds[: len(versions)]

    def accepts(self, change: Change, mode: str) -> bool:
        # Apicurio takes the path by its word, whatever the mode
        against = "versions" if mode.endswith("_TRANSITIVE") else "versions/latest"
        path = f"/compatibility/subjects/{change.subject}/{against}"
        return bool(self.ask("POST", path, {"schema": json.dumps(change.new)})["is_compatible"])


@pytest.fixture(scope="module")
def judged(stack: Stack) -> list[Judged]:
    """Every change in its modes. The registry's global mode is set, one call for all, and given back."""
    registry, oracle = open_registry(stack.registry_url), Oracle(stack.registry_url)
    before = registry.compatibility()
    given = changes("oracle")
    found = []
    try:
        registry.set_compatibility("NONE")
        firsts = [one for one in given if one.in_every_mode]
        stored = {one.subject: kept for one, kept in zip(firsts, oracle.each(oracle.register, firsts), strict=True)}
        for mode in MODES:
            registry.set_compatibility(mode)
            asked = given if mode in ("BACKWARD", "FORWARD") else firsts
            answers = oracle.each(partial(oracle.accepts, mode=mode), asked)
            found += [
                Judged(one, mode, stored[one.subject], tuple(compatible(one.new, one.olds, mode)), accepts)
                for one, accepts in zip(asked, answers, strict=True)
            ]
    finally:
        registry.set_compatibility(before)
    return found


@pytest.mark.integration
@pytest.mark.timeout(300)  # about 15 s, on a machine with nothing else to do
def test_our_judgement_of_hundreds_of_changes_is_the_registrys_or_differs_for_a_reason_that_is_known(
    judged: list[Judged],
) -> None:
    assert len({id(one.change) for one in judged}) == SUBJECTS * CANDIDATES
    met: dict[str, int] = dict.fromkeys(REASONS, 0)
    unexplained = []
    for one in judged:
        if one.accepts == (not one.ours):
            continue
        reason = next((name for name, fits in REASONS.items() if fits(one)), None)
        if reason is None:
            unexplained.append((one.mode, one.change.mutations, [str(each) for each in one.ours], one.accepts))
        else:
            met[reason] += 1
    assert unexplained == []
    assert all(met.values()), f"a reason is given for a difference that no longer exists: {met}"


@pytest.mark.integration
@pytest.mark.timeout(300)  # about 15 s, on a machine with nothing else to do
def test_the_changes_are_of_every_kind_and_their_verdicts_of_both(judged: list[Judged]) -> None:
    """A generator that makes the same change again and again, or only what is refused, would show nothing."""
    assert {name for one in judged for name in one.change.mutations} == {one.__name__ for one in MUTATIONS}
    for mode in MODES[1:]:
        verdicts = [not one.ours for one in judged if one.mode == mode]
        assert min(verdicts.count(True), verdicts.count(False)) >= SUBJECTS // 10, mode
    kinds = {reason.kind for one in judged for reason in one.ours}
    assert kinds == {"name", "missing-default", "type", "symbols", "size", "union", "meaning"}
