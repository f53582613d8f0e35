"""Parts of the catalogue's screens that several commands show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ops.screen import Column, shown

if TYPE_CHECKING:
    from ops.app import App

FLOW_COLUMNS = (
    Column("event"), Column("field"), Column("personal_data", "PERSONAL DATA", lambda names: ", ".join(names) or "-"),
    Column("subscription"), Column("connection"), Column("asked", "ACTION"), Column("vendor_field", "VENDOR FIELD"),
    Column("how", "KNOWN"),
)  # fmt: skip


def lines(*pairs: tuple[str, Any]) -> str:
    """``name  value`` lines; pairs without a value are left out."""
    present = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in present), default=0)
    return "\n".join(f"{name:<{width}}  {shown(value)}" for name, value in present)


def flow_table(app: App, flows: Sequence[Mapping[str, Any]], *, without: Iterable[str] = ()) -> Any:
    """Lines of the lineage as a table."""
    left_out = set(without)
    rows = [flow_line(one) for one in flows]
    return app.screen.table(rows, [one for one in FLOW_COLUMNS if one.field not in left_out])


def flow_line(flow: Mapping[str, Any]) -> dict[str, Any]:
    """A flow with what asks the vendor: the action, or the function that chooses one."""
    return {**flow, "asked": flow["action"] or flow["projection"]}


def field_lines(data: Mapping[str, Any]) -> str:
    """What a field is."""
    return lines(
        ("type", data["type"] + ("" if data["required"] else ", may be left out")),
        ("personal data", data["personal_data"] or "no"),
        ("limits", "; ".join(data["limits"])),
        ("examples", ", ".join(map(str, data["examples"]))),
        ("owner", data["owner"]),
    )


def seen_lines(seen: Mapping[str, Any] | None, fresh: str | None) -> list[tuple[str, Any]]:
    """What the cluster shows of an event."""
    if seen is None:
        return []
    topic = seen["topic"]
    if topic is None:
        return [("seen", "its topic is not there yet: backbone schema register")]
    versions = ", ".join(
        f"{'version ' if name.isdigit() else ''}{name} ({count:,} of the last {seen['sampled']:,})"
        for name, count in seen["versions"].items()
    )
    file = "not registered as this file has it" if seen["file_version"] is None else f"version {seen['file_version']}"
    return [
        ("last event", "none in the sample" if seen["last"] is None else seen["last"]),
        ("volume", f"about {seen['about_per_day']:,} a day; its topic {topic['last_hour']:,} in the last hour, "
                   f"{topic['last_day']:,} in the last day, {topic['kept']:,} kept"),
        ("producers", ", ".join(f"{name} ({count:,})" for name, count in seen["producers"].items())),
        ("in use", versions),
        ("this file", file),
        ("fresh", fresh),
        ("looked at", seen["at"]),
    ]  # fmt: skip
