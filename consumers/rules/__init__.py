"""What every rule of subscription files means, why it is there, and how to mend what breaks it; see
``schemas.rules``."""

from consumers.rules.subscription import SUBSCRIPTION_FILE_RULES
from consumers.rules.yaml_traps import YAML_RULES
from schemas.rules import Rule

SUBSCRIPTION_RULES: tuple[Rule, ...] = (*SUBSCRIPTION_FILE_RULES, *YAML_RULES)

GOOD_SUBSCRIPTION = {
    "description": "description: Tells finance about payments.",
    "owner": "owner: team-finance",
    "connection": "connection: slack",
    "routes": """routes:
  - event: billing.InvoicePaid
    action: message.post
    body: {channel: "#paid", text: "{{ data.invoice_id }} is paid"}""",
}
"""The keys that examples of the frame ``part`` are completed with, where they do not have them."""

__all__ = ["GOOD_SUBSCRIPTION", "SUBSCRIPTION_RULES"]
