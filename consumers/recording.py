"""Which fields Python projections read: seen while tests and previews run, by handing them a view that takes notes.

Expressions are parsed, so what they read is known; a function's reads are known only from runs. A branch that no run
took is not seen: whoever relies on the notes says how many events and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from consumers.projections import Confined
from consumers.subscription import Project, Projected, Subscription
from schemas.event import Event

Note = Callable[[str], None]


@dataclass(slots=True)
class Seen:
    """What one event type's projections were seen to do: ``fields`` are dotted data paths as ``Route.reads`` has them
    (items of a list are of the list's path; ``""``: the payload as a whole), ``places`` of the delivery they filled
    (``entity``, ``body.email``), over ``events`` events."""

    fields: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    events: int = 0


class Recording:
    """Notes of one subscription's projections, by event type, while it runs. One thread at a time."""

    def __init__(self, subscription: Subscription) -> None:
        self.seen: dict[str, Seen] = {}
        self.subscription = replace(
            subscription,
            routes={
                event: tuple(replace(one, project=self._recorded(event, one.project)) for one in routes)
                for event, routes in subscription.routes.items()
            },
        )
        """The same subscription; running it takes notes. Where no route is a projection it is as it was."""

    def _recorded(self, event_type: str, project: Project) -> Project:
        if not isinstance(project, Confined):
            return project
        seen = self.seen.setdefault(event_type, Seen())

        def noted(event: Event) -> Projected | None:
            shown = project.sees(event)
            seen.events += 1
            projected = project.function(replace(shown, data=_View(shown.data, "", seen.fields.add)))
            if isinstance(projected, Projected) and isinstance(projected.body, Mapping):
                seen.places |= {"entity", *(f"body.{name}" for name in projected.body)}
            return projected

        return noted


class _View(dict[str, Any]):
    """A record that notes what is looked at. A dict, since projections may rely on that; whoever takes all of it
    (iterates, copies, compares, encodes) has read it as a whole."""

    __slots__ = ("_note", "_path")

    def __init__(self, values: Mapping[str, Any], path: str, note: Note) -> None:
        super().__init__(values)
        self._path, self._note = path, note

    def _of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def __getitem__(self, name: str) -> Any:
        return _viewed(super().__getitem__(name), self._of(name), self._note)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        if found and isinstance(name, str) and not isinstance(super().__getitem__(name), Mapping):
            self._note(self._of(name))
        return found

    def _whole(self) -> dict[str, Any]:
        self._note(self._path)
        return {name: super(_View, self).__getitem__(name) for name in super().__iter__()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def keys(self) -> Any:
        return self._whole().keys()

    def values(self) -> Any:
        return self._whole().values()

    def items(self) -> Any:
        return self._whole().items()

    def copy(self) -> dict[str, Any]:
        return self._whole()

    def pop(self, name: str, *default: Any) -> Any:
        return self._whole().pop(name, *default)

    def __or__(self, other: Any) -> Any:
        return self._whole() | other

    def __eq__(self, other: object) -> bool:
        return self._whole() == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self._whole())


def _viewed(value: Any, path: str, note: Note) -> Any:
    """A value as it is handed out: records go on taking notes; anything else is read with it, and the records in a
    list take notes as well."""
    if isinstance(value, Mapping):
        return _View(value, path, note)
    note(path)
    if isinstance(value, list):
        return [_View(item, path, note) if isinstance(item, Mapping) else item for item in value]
    return value
