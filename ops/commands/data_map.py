"""``backbone catalog personal-data``: the data map, and what vendors were given about one person. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.catalog.data_map import PersonalFlow

MAP = [
    Column("personal_data", "CLASS"),
    Column("event"),
    Column("field"),
    Column("subscription"),
    Column("connection", "VENDOR"),
    Column("action"),
    Column("place"),
    Column("purpose"),
    Column("owner"),
    Column("region"),
    Column("sub_processor"),
]
RECEIVED = [
    Column("subscription"),
    Column("connection", "VENDOR"),
    Column("action"),
    Column("entity"),
    Column("personal_data", "CLASSES"),
    Column("first_at", "FIRST"),
    Column("last_at", "LAST"),
    Column("count", "EVENTS"),
    Column("region"),
    Column("sub_processor"),
    Column("erased_at", "ERASED"),
]


@click.command("personal-data")
@click.option("--class", "class_", metavar="CLASS", help="Only this class (email, name, phone ...).")
@click.option("--event", metavar="EVENT", help="Only this event (billing.InvoiceCreated).")
@click.option("--connection", metavar="NAME", help="Only what goes to this vendor.")
@click.option("--all", "all_", is_flag=True, help="Also personal fields that go nowhere.")
@click.option("--of", "of", metavar="FIELD=VALUE", help="What vendors were given about one person (user_id=u-4711).")
@screen_options
@click.pass_obj
def personal_data(
    app: App, class_: str | None, event: str | None, connection: str | None, all_: bool, of: str | None
) -> None:
    """The data map: which personal data goes to which vendor, as which field, what for, and who answers for it.

    From the subscription files. PLACE is the field of the action's body (or entity) at the vendor; 'anywhere': a Python
    projection may send it (HOW in JSON: sent, seen, may). With --of: who got what about one person and when, from the
    ledger; the person is found where the value is an event's entity, key or subject. The value itself is not shown.

    JSON: one row a field and place, or with --of one row a vendor's entity: subscription, connection, connector,
    region, sub_processor, action, entity, personal_data, first_at, last_at, count, erased_at.
    """
    if of is not None:
        if class_ is not None or event is not None or connection is not None or all_:
            from schemas.errors import InputError

            raise InputError("--of stands alone: leave out --class, --event, --connection and --all.")
        _received(app, of)
        return
    rows = [one for one in _map(app) if all_ or one.place is not None]
    for wanted, known, noun in (
        (class_, _classes(), "class of personal data"),
        (event, list(app.contracts), "event"),
        (connection, list(app.connection_types), "connection"),
    ):
        _check(wanted, known, noun)
    chosen = [
        asdict(one)
        for one in rows
        if class_ in (None, one.personal_data) and event in (None, one.event) and connection in (None, one.connection)
    ]
    app.screen.rows("personal_data", chosen, MAP, empty="No personal data goes anywhere by these subscriptions.")


def _map(app: App) -> list[PersonalFlow]:
    from ops.catalog.data_map import data_map
    from ops.catalog.readers import loaded_subscriptions, readers_of

    loaded = loaded_subscriptions(app)
    readers = [reader for one in loaded for reader in readers_of(app, one)]
    return data_map(app.contracts.values(), loaded, readers, tables(app))


def tables(app: App) -> dict[str, dict[str, Any]]:
    """The connections of backbone.toml as they are written there."""
    return {name: table.model_dump(exclude_none=True) for name, table in app.project.connections.items()}


def _received(app: App, question: str) -> None:
    from ops.catalog.data_map import received
    from ops.ledger.given import given
    from ops.ledger.query import end_of_receipts
    from ops.ledger.question import AboutValue, parse_question
    from schemas.errors import BackboneError, InputError

    asked = parse_question(question, app.contracts)
    if not isinstance(asked, AboutValue):
        raise InputError("--of is written FIELD=VALUE, for example --of user_id=u-4711.")
    ledger = app.ledger()
    found = given(
        ledger.about(asked.value, asked.types), {name: one.actions for name, one in app.connection_types.items()}
    )
    try:
        unread: int | None = end_of_receipts(app).missing(app)
    except BackboneError as error:
        unread = None
        app.screen.warn(f"How much the ledger has not read yet is not known. {error}")
    if unread:
        app.screen.warn(f"The ledger has not written {unread:,} receipts yet: some of this may be older.")
    app.screen.rows(
        "personal_data_received",
        received(found, tables(app)),
        RECEIVED,
        empty=f"The ledger knows nothing that a vendor got about this {asked.field} as an event's entity, key or "
        "subject. Where it is another field, ask by the field that is.",
    )
    if found:
        app.screen.say(f"Erase what they got: backbone erase {asked.field}=…")


def _classes() -> list[str]:
    from schemas.contract_form import PERSONAL_DATA_CLASSES

    return [one for one in PERSONAL_DATA_CLASSES if one != "none"]


def _check(wanted: str | None, known: Iterable[str], noun: str) -> None:
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    names = list(known)
    if wanted is not None and wanted not in names:
        raise NotFoundError(f"There is no {noun} '{wanted[:100]}'.{did_you_mean(wanted, names)}")
