"""Attached subscriptions as something to measure: what they read, where they started, when they are late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ops.lag.measure import Subject
from schemas.duration import parse_duration
from schemas.errors import BackboneError, InputError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription, ControlSnapshot, Definition
    from ops.app import App
    from ops.lag.cluster import Cluster, Isolation
    from schemas.contract import Contracts


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands at the head of an attached text. ``slo`` None: neither the text nor its contracts say one.

    The text is read, not loaded: no projection is executed, and one that this version would refuse still has an owner.
    """

    description: str
    owner: str
    slo: timedelta | None
    reads: tuple[str, ...]
    """the events as written, wildcards included"""


def header(definition: Definition, contracts: Contracts | None) -> Header:
    """The head of what was attached. ``contracts`` None: they cannot be read, and an SLO that only they say is
    unknown."""
    content = _content(definition.text)
    policies = content.get("policies")
    reads: list[str] = []
    routes = content.get("routes")
    for route in routes if isinstance(routes, list) else []:
        events = route.get("event") if isinstance(route, dict) else None
        reads += [str(event) for event in (events if isinstance(events, list) else [events]) if event]
    return Header(
        description=str(content.get("description") or ""),
        owner=str(content.get("owner") or ""),
        slo=_slo(policies if isinstance(policies, dict) else {}, definition, contracts),
        reads=tuple(dict.fromkeys(reads)),
    )


@lru_cache(maxsize=1024)
def _content(text: str) -> Mapping[str, Any]:
    """The tree of a text, to be read only: the monitor asks for each of them in every round."""
    from consumers.yaml_file import read

    tree, _ = read(text)
    content: Any = tree.data() if tree is not None else {}
    return content if isinstance(content, dict) else {}


def _slo(policies: Mapping[str, Any], definition: Definition, contracts: Contracts | None) -> timedelta | None:
    try:
        if "slo" in policies:
            return parse_duration(policies["slo"])
    except InputError:
        return None
    known = [contracts[event].freshness_slo for event in definition.events if event in contracts] if contracts else []
    return min(known, default=None)


def subject_of(attached: AttachedSubscription, contracts: Contracts | None) -> Subject:
    """An attached subscription as a subject: committed records only, all partitions of its topics, its starts."""
    definition = attached.definition
    slo = header(definition, contracts).slo if definition is not None else None
    return Subject(
        name=attached.name,
        ours=True,
        topics=frozenset(definition.topics) if definition is not None else frozenset(),
        counts=dict(definition.topics) if definition is not None else {},
        starts={place: start.offset for place, start in attached.starts.items()},
        slo_s=slo.total_seconds() if slo is not None else None,
        isolation="committed",
    )


def contracts_if_readable(app: App) -> Contracts | None:
    """The project's contracts, or None with a warning: a broken file must not hide what is wrong in production."""
    try:
        return app.contracts
    except BackboneError as error:
        app.screen.warn(f"The contracts cannot be read, so default SLOs are unknown: {error}")
        return None


def subjects(
    names: Iterable[str],
    *,
    control: ControlSnapshot,
    contracts: Contracts | None,
    cluster: Cluster,
    isolation: Isolation | None = None,
) -> list[Subject]:
    """The groups of these names, or of all there are. ``isolation`` is how foreign groups read, if it is known.

    Blocks on one request. Raises NotFoundError, with a suggestion, for a name that is neither a group of the cluster
    nor attached."""
    chosen = list(dict.fromkeys(names))
    foreign = set(cluster.group_names())
    known = sorted(foreign | control.subscriptions.keys())
    for name in chosen:
        if name not in foreign and name not in control.subscriptions:
            raise NotFoundError(
                f"There is no group '{name}' in the cluster, and nothing of that name is attached."
                f"{did_you_mean(name, known)}"
            )
    found = []
    for name in chosen or known:
        attached = control.subscriptions.get(name)
        if attached is not None:
            found.append(subject_of(attached, contracts))
        else:
            found.append(Subject(name=name, isolation=isolation or "uncommitted"))
    return found
