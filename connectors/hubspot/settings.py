"""The settings of a HubSpot connection, and what we depend on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field

from connectors.settings import SETTINGS, BaseUrl, Connections, Credential, Timeout

PropertyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]


class HubSpotSettings(BaseModel):
    """One HubSpot account."""

    model_config = SETTINGS

    token: Credential = Field(description="Token of a service key or private app, with the scope to write contacts.")
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

    @property
    def upsert_path(self) -> str:
        """Path of the batch upsert of contacts in this version of the API."""
        if self.api_version == "v3":
            return "/crm/v3/objects/contacts/batch/upsert"
        return f"/crm/objects/{self.api_version}/contacts/batch/upsert"


DEPENDENCY: Mapping[str, str] = {
    "vendor": "HubSpot",
    "api": "CRM objects: contacts, batch upsert",
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
