"""The settings of a HubSpot connection, and what we depend on there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from connectors.connector import ApiVersion, JsonValue
from connectors.settings import SETTINGS, BaseUrl, Connections, Credential, Timeout

PropertyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]


class HubSpotSettings(BaseModel):
    """One HubSpot account."""

    model_config = SETTINGS

    token: Credential | None = Field(
        None, description="Token of a service key or private app, with the scope to write contacts."
    )
    client_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="In place of `token`: the client id of an OAuth app, with the two below."
    )
    client_secret: Credential | None = Field(None, description="The app's client secret.")
    refresh_token: Credential | None = Field(
        None, description="The refresh token of the app's installation; access tokens are renewed with it."
    )
    base_url: BaseUrl = Field("https://api.hubapi.com", description="Where HubSpot answers.")
    api_version: Annotated[str, Field(pattern=r"^(v3|20[0-9]{2}-(03|09))$")] = Field(
        "2026-03", description="Version of the CRM API: dated (each is supported for 18 months), or v3 (legacy)."
    )
    unique_property: PropertyName = Field(
        "backbone_id",
        description="Contact property that holds the entity. Create it in HubSpot with unique values before the start.",
    )
    custom_properties: tuple[PropertyName, ...] = Field(
        (), description="Properties of this account that subscriptions may write, beside HubSpot's own."
    )
    timeout_s: Timeout = Field(20.0, description="Seconds for a whole call.")
    connections: Connections = Field(256, description="Connections kept open at most.")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        oauth = (self.client_id, self.client_secret, self.refresh_token)
        if (self.token is None) == (None in oauth) or (self.token is not None and oauth != (None, None, None)):
            raise ValueError("give either token, or client_id, client_secret and refresh_token")
        return self

    @property
    def contacts_path(self) -> str:
        """Where contacts are in this version of the API."""
        return "/crm/v3/objects/contacts" if self.api_version == "v3" else f"/crm/objects/{self.api_version}/contacts"


SUPPORTED_MONTHS = 18
"""How long a dated version is supported."""


def api(table: Mapping[str, JsonValue]) -> ApiVersion:
    """The version that a connection asks. A dated one ends with the 18th month after its own; of v3 HubSpot says that
    it is legacy, and no end."""
    version = str(table.get("api_version") or HubSpotSettings.model_fields["api_version"].default)
    year, _, month = version.partition("-")
    if not (year.isdecimal() and month.isdecimal()):
        return ApiVersion(version)
    months = int(year) * 12 + int(month) - 1 + SUPPORTED_MONTHS
    return ApiVersion(version, date(months // 12, months % 12 + 1, 1))


DEPENDENCY: Mapping[str, str] = {
    "vendor": "HubSpot",
    "api": "CRM objects: contacts, batch upsert, batch read, list, GDPR deletion",
    "version": "2026-03",
    "sunset": "2027-09 (18 months after the version's date)",
    "docs": "https://developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/batch/upsert-contacts",
    "quota": "100 or 190 calls per 10 s by plan, 250,000 to 1,000,000 a day; 100 contacts a call",
    "sla": "none for API calls; status.hubspot.com",
    "criticality": "sales and support see old contacts while it is away; nothing is lost",
    "fallback": "lanes wait; rewind or redrive after a longer outage",
    "owner": "the subscription's owner",
}
"""The manifest of connectors.md rule 9."""
