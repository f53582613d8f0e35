"""Who may do what at a cluster that has an authorizer: its ACLs against what a role needs (``ops.permissions``).

What it cannot tell: super users, who need none; and groups of principals that an authorizer of somebody else knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ops.app import CLUSTER_TIMEOUT_S
from ops.permissions import ALL, CLUSTER, DESCRIBE, Permission

if TYPE_CHECKING:
    from ops.app import App

IMPLIED = {DESCRIBE: ("Read", "Write", "Delete", "Alter"), "DescribeConfigs": ("AlterConfigs",)}
"""What Kafka's own authorizer takes for permission of an operation beside itself and All."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One ACL, in Kafka's words: ``resource`` topic, group or cluster; ``pattern`` literal or prefixed."""

    principal: str
    resource: str
    name: str
    pattern: str
    operation: str
    allows: bool

    def is_about(self, resource: str, name: str) -> bool:
        if self.resource != resource:
            return False
        if self.pattern == "prefixed":
            return name.startswith(self.name)
        return self.name in (name, ALL)


@dataclass(frozen=True, slots=True)
class Standing:
    """``allowed`` are the principals that have everything; ``nearest`` the one that lacks least, with what it lacks
    (None where nobody has anything of it)."""

    allowed: tuple[str, ...]
    nearest: tuple[str, tuple[str, ...]] | None


def standing(wanted: Sequence[Permission], bindings: Sequence[Binding]) -> Standing:
    """Who has all of ``wanted``. Pure."""
    lacks = {
        principal: tuple(_lacking(wanted, [one for one in bindings if one.principal in (principal, "User:*")]))
        for principal in sorted({one.principal for one in bindings})
    }
    needed = sum(len(one.operations) for one in wanted)
    allowed = tuple(principal for principal, missing in lacks.items() if not missing)
    near = min(((len(missing), principal) for principal, missing in lacks.items() if missing), default=None)
    nearest = None if allowed or near is None or near[0] >= needed else (near[1], lacks[near[1]])
    return Standing(allowed, nearest)


def _lacking(wanted: Iterable[Permission], bindings: Sequence[Binding]) -> Iterable[str]:
    for one in wanted:
        about = [binding for binding in bindings if binding.is_about(one.resource, one.name)]
        for operation in one.operations:
            denied = any(not b.allows and b.operation in (operation, "All") for b in about)
            fitting = (operation, "All", *IMPLIED.get(operation, ()))
            if denied or not any(b.allows and b.operation in fitting for b in about):
                where = "the cluster" if one.name == CLUSTER else f"the {one.resource} {one.name}"
                yield f"{operation} on {where}"


def bindings(app: App) -> list[Binding] | Literal["no authorizer", "not allowed"]:
    """All ACLs of the cluster, or why they are not known. Blocks; raises UnreachableError."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
        AclBindingFilter,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    anything: Any = None  # what its types do not say that it takes
    every = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY, AclPermissionType.ANY
    )
    try:
        found = app.admin().describe_acls(every, request_timeout=CLUSTER_TIMEOUT_S).result()
    except KafkaException as error:
        match error.args[0].code():
            case KafkaError.SECURITY_DISABLED:
                return "no authorizer"
            case KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                return "not allowed"
        raise app.kafka_error(error.args[0], "reading who may do what") from None
    if not found:
        # the client swallows the broker's answer that there is no authorizer, or that it is not for us to know
        return _why_none(app) or []
    return [
        Binding(
            principal=one.principal,
            resource="cluster" if one.restype == ResourceType.BROKER else one.restype.name.lower(),
            name=one.name,
            pattern=one.resource_pattern_type.name.lower(),
            operation="".join(part.capitalize() for part in one.operation.name.split("_")),
            allows=one.permission_type == AclPermissionType.ALLOW,
        )
        for one in found
    ]


def _why_none(app: App) -> Literal["no authorizer", "not allowed"] | None:
    """Why there are no ACLs; None: there is an authorizer, and nobody was given anything."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
        ConfigResource,
    )

    broker = str(min(app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).brokers))
    asked = [ConfigResource(ConfigResource.Type.BROKER, broker)]
    (answer,) = app.admin().describe_configs(asked, request_timeout=CLUSTER_TIMEOUT_S).values()
    try:
        configured = answer.result().get("authorizer.class.name")
    except KafkaException as error:
        if error.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return "not allowed"
        raise app.kafka_error(error.args[0], "reading whether the cluster has an authorizer") from None
    if configured is None:
        return "not allowed"  # a cluster that does not show it
    return None if configured.value else "no authorizer"
