"""Search in the catalogue: every word must be found somewhere; names count most. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ops.catalog.catalog import Catalog
from ops.catalog.describe import describe_action, personal_classes
from ops.catalog.lineage import UNCLASSED

WEIGHTS = {"name": 8.0, "words": 5.0, "class": 4.0, "owner": 3.0, "doc": 2.0, "fields": 1.5}
"""How much a hit counts, by where it is: the whole name, a word of it, and so on."""

WORDS_MAX = 12
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+", re.UNICODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that can be found. ``texts`` are its words by where they stand (keys of ``WEIGHTS``)."""

    kind: str
    name: str
    doc: str
    owner: str = ""
    of: str = ""
    """the event of a field, the connection of an action"""
    texts: dict[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An entry that has every word. ``found_in`` are the places that had one."""

    entry: Entry
    score: float
    found_in: tuple[str, ...]


def search(entries: Sequence[Entry], words: Iterable[str]) -> tuple[list[Hit], dict[str, str]]:
    """Hits, the best first, and what was taken in place of words that nothing has (``invocie``: ``invoice``). Without
    any hit, or any word, the list is empty."""
    wanted = [word.lower() for text in words for word in text.split()][:WORDS_MAX]
    if not wanted:
        return [], {}
    vocabulary = {word for entry in entries for place in entry.texts.values() for word in place}
    corrected = {}
    for at, word in enumerate(wanted):
        if any(known.startswith(word) for known in vocabulary) or any(word in one.name.lower() for one in entries):
            continue
        near = difflib.get_close_matches(word, sorted(vocabulary), n=1, cutoff=0.7)
        if near:
            corrected[word] = wanted[at] = near[0]
    hits = [hit for entry in entries if (hit := _hit(entry, wanted)) is not None]
    return sorted(hits, key=lambda hit: (-hit.score, hit.entry.kind, hit.entry.name)), corrected


def entries(catalog: Catalog) -> list[Entry]:
    """Everything of the project, and the backbone's own events."""
    return [*_events(catalog), *_subscriptions(catalog), *_connections(catalog)]


def words_of(*texts: str) -> frozenset[str]:
    """The words of texts, lower case; names are taken apart (``InvoiceCreated``: invoice, created, invoicecreated)."""
    found: set[str] = set()
    for text in texts:
        found.update(word.lower() for word in _WORD.findall(text))
        found.update(word.lower() for word in re.findall(r"[^\W_]+", text))
    return frozenset(found)


def _hit(entry: Entry, wanted: Sequence[str]) -> Hit | None:
    score, places = 0.0, set()
    for word in wanted:
        best = 0.0
        name = entry.name.lower()
        if word == name or word == name.rpartition(".")[2]:
            best = WEIGHTS["name"]
            places.add("name")
        elif len(word) > 2 and word in name:
            best = WEIGHTS["words"] * 0.8
            places.add("name")
        for place, known in entry.texts.items():
            found = 1.0 if word in known else 0.6 if any(one.startswith(word) for one in known) else 0.0
            if found:
                places.add(place if place != "words" else "name")
                best = max(best, WEIGHTS[place] * found)
        if not best:
            return None
        score += best
    kinds = {"event": 1.0, "subscription": 1.0, "connection": 1.0, "action": 0.9, "field": 0.8}
    return Hit(entry=entry, score=round(score * kinds[entry.kind], 2), found_in=tuple(sorted(places)))


def _events(catalog: Catalog) -> Iterator[Entry]:
    for contract in catalog.events.values():
        yield Entry(
            kind="event",
            name=contract.name,
            doc=contract.doc,
            owner=contract.owner,
            texts={
                "words": words_of(contract.name, contract.topic),
                "doc": words_of(contract.doc),
                "owner": words_of(contract.owner, contract.contact),
                "class": words_of(*personal_classes(contract)),
                "fields": words_of(*contract.fields),
            },
        )
        for one in contract.fields.values():
            classes = () if one.personal_data in UNCLASSED else (str(one.personal_data),)
            yield Entry(
                kind="field",
                name=f"{contract.name}.{one.path}",
                doc=one.doc,
                owner=contract.owner,
                of=contract.name,
                texts={"words": words_of(one.path), "doc": words_of(one.doc), "class": words_of(*classes)},
            )


def _subscriptions(catalog: Catalog) -> Iterator[Entry]:
    for one in catalog.subscriptions.values():
        yield Entry(
            kind="subscription",
            name=one.name,
            doc=one.description,
            owner=one.owner,
            texts={
                "words": words_of(one.name),
                "doc": words_of(one.description, one.purpose),
                "owner": words_of(one.owner),
                "class": words_of(*one.personal_data_allowed),
                "fields": words_of(one.connection, *one.routes),
            },
        )


def _connections(catalog: Catalog) -> Iterator[Entry]:
    for name, connector in catalog.connections.items():
        table = catalog.tables[name]
        place = f"{table.get('region', '')} {table.get('sub_processor', '')}"
        yield Entry(
            kind="connection",
            name=name,
            doc=connector.doc,
            texts={"words": words_of(name, connector.name), "doc": words_of(connector.doc), "owner": words_of(place)},
        )
        for action in map(describe_action, connector.actions.values()):
            yield Entry(
                kind="action",
                name=f"{name}:{action['action']}",
                doc=action["doc"],
                of=name,
                texts={
                    "words": words_of(action["action"]),
                    "doc": words_of(action["doc"]),
                    "fields": words_of(*(one["field"] for one in action["body"])),
                },
            )
