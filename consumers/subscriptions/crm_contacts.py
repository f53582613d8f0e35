"""Projections of crm-contacts.yaml that are easier said in Python."""

from __future__ import annotations

from consumers.subscription import Projected
from schemas.event import Event


def email_changed(event: Event) -> Projected | None:
    """The contact's address follows the user's. A change that HubSpot would not see (upper and lower case only) is not
    sent: None means "not ours". The event holds only what personal_data.allow lets leave."""
    old, new = event.data["old_email"].lower(), event.data["new_email"].lower()
    if old == new:
        return None
    return Projected(action="contact.upsert", entity=event.data["user_id"], body={"email": new})
