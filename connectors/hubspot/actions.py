"""What HubSpot can be asked. The fields are HubSpot's own property names; each account adds its own.

Custom properties (``plan``, ``upgraded_on``) are declared once per connection, so that a typo is found when a
subscription is loaded and not by HubSpot at night::

    [connections.hubspot]
    connector = "hubspot"
    custom_properties = ["plan", "upgraded_on"]

``actions_for`` turns that table into the actions of the connection: the custom properties become fields like any
other (in checks, in suggestions, in the editor's JSON Schema, in ``backbone catalog show``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from connectors.connector import Action, JsonValue
from schemas.errors import InputError

PROPERTY = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")
"""HubSpot's internal property names."""

CUSTOM_MAX = 1000
ERASE = "contact.erase"

LIFECYCLE_STAGES = (
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
)
"""HubSpot's default stages, in their order."""

Text = Annotated[str, Field(max_length=65_536)]
Scalar = str | int | float | bool | Decimal | date | datetime | None


class ContactUpsert(BaseModel):
    """Creates the contact or updates it; asking twice is the same as asking once. The contact is found by the unique
    property of the connection (``unique_property``, default ``backbone_id``), which holds the route's ``entity``.
    A field that is left out stays as it is; a null clears it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"email": "ana@example.org", "firstname": "Ana", "lifecyclestage": "lead"}]},
    )

    email: Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = Field(
        None, description="The contact's e-mail address. HubSpot keeps it in lower case; one contact per address."
    )
    firstname: Text | None = Field(None, description="First name.")
    lastname: Text | None = Field(None, description="Last name.")
    phone: Text | None = Field(None, description="Phone number, as text.")
    mobilephone: Text | None = Field(None, description="Mobile phone number, as text.")
    company: Text | None = Field(None, description="Company name, as text (not the association to a company).")
    jobtitle: Text | None = Field(None, description="Job title.")
    website: Text | None = Field(None, description="Web site.")
    address: Text | None = Field(None, description="Street and number.")
    city: Text | None = Field(None, description="City.")
    state: Text | None = Field(None, description="State or region.")
    zip: Text | None = Field(None, description="Postal code, as text.")
    country: Text | None = Field(None, description="Country.")
    hs_language: Text | None = Field(None, description="Preferred language, such as en or de-at.")
    hs_lead_status: Text | None = Field(None, description="Lead status, by its internal name.")
    hubspot_owner_id: Text | None = Field(None, description="Id of the HubSpot user who owns the contact.")
    lifecyclestage: (
        Literal[
            "subscriber",
            "lead",
            "marketingqualifiedlead",
            "salesqualifiedlead",
            "opportunity",
            "customer",
            "evangelist",
            "other",
        ]
        | None
    ) = Field(
        None,
        description="Lifecycle stage. HubSpot never moves it backwards: an earlier stage is left as it is, the rest "
        "of the update is applied, and the delivery is noted as lifecyclestage_kept.",
    )


class ContactErase(BaseModel):
    """Deletes the contact for good, with all that hangs on it (HubSpot's GDPR deletion): it cannot be restored there.
    The contact is found by the connection's unique property, which holds the route's ``entity``; one that is not there
    any more counts as erased. ``backbone erase`` asks for it; a route may, too."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, json_schema_extra={"examples": [{}]}
    )


def _contact_actions(body: type[BaseModel]) -> Mapping[str, Action]:
    # The newest values win, so a later update may pass one that was set aside; redriving that one leaves out what
    # was sent later (staleness, delivery.md section 5).
    return {
        "contact.upsert": Action(name="contact.upsert", body=body, upsert=True, erased_by=ERASE),
        ERASE: Action(name=ERASE, body=ContactErase, upsert=False),
    }


ACTIONS = _contact_actions(ContactUpsert)
"""The actions with HubSpot's standard properties only."""


def custom_properties(table: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The names under ``custom_properties`` of a connection's table, checked. Raises InputError."""
    names = table.get("custom_properties", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError('custom_properties must be a list of property names, such as ["plan", "upgraded_on"].')
    if len(names) > CUSTOM_MAX:
        raise InputError(f"custom_properties names more than {CUSTOM_MAX} properties.")
    for name in names:
        if not PROPERTY.match(name):
            raise InputError(
                f"custom_properties: '{name[:100]}' is not a HubSpot property name: "
                "lower-case letters, digits and _, beginning with a letter."
            )
    return tuple(dict.fromkeys(names))


def actions_for(table: Mapping[str, JsonValue]) -> Mapping[str, Action]:
    """The actions of a connection whose table of backbone.toml is ``table``. Raises InputError."""
    names = [name for name in custom_properties(table) if name not in ContactUpsert.model_fields]
    if not names:
        return ACTIONS
    fields: dict[str, Any] = {
        name: (Scalar, Field(None, description="Custom property of this account.")) for name in names
    }
    body = create_model("ContactUpsert", __base__=ContactUpsert, __doc__=ContactUpsert.__doc__, **fields)
    return _contact_actions(body)
