"""A reference: where a credential stands that does not stand in backbone.toml. Pure; nothing is looked up here.

``env:NAME`` an environment variable · ``file:PATH`` a file, relative to the project · ``vault:PATH#FIELD`` a field of
a secret of HashiCorp Vault or OpenBao, PATH as its HTTP API has it (``secret/data/hubspot``,
``database/creds/warehouse``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from schemas.errors import InputError

FORMS = "env:NAME, file:PATH or vault:PATH#FIELD"
OWN_FORMS = "env:NAME or file:PATH"
"""Of what opens the vault itself."""
WRITE = f"Write {FORMS}."
"""What to write in place of a credential."""
_FORM = re.compile(r"(env|file):.+|vault:.*#.*", re.DOTALL)  # vault:8200 is a host and its port
_PATH, _FIELD = r"[A-Za-z0-9_.@+~-]+(/[A-Za-z0-9_.@+~-]+)+", r"[^#\s]{1,200}"
_VAULT = re.compile(rf"(?P<path>{_PATH})#(?P<field>{_FIELD})")
OWN_PATTERN = "^(env|file):."
PATTERN = rf"^((env|file):.|vault:{_PATH}#{_FIELD}$)"
"""The same for JSON Schema: a reference that is well formed; ``OWN_PATTERN`` one that needs no vault."""


@dataclass(frozen=True, slots=True)
class VaultReference:
    """A field of the secret at ``path``, without ``/v1/``."""

    path: str
    field: str


def is_reference(value: object) -> bool:
    """Whether it names a place of a credential, well or badly formed."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def holds_reference(value: Any) -> bool:
    """The same of a value, or of anything in a table."""
    return any(holds_reference(item) for item in value.values()) if isinstance(value, dict) else is_reference(value)


def vault_reference(name: str) -> VaultReference:
    """What stands behind ``vault:``. Raises InputError."""
    found = _VAULT.fullmatch(name)
    if found is None or ".." in found["path"].split("/"):
        raise InputError(
            "a secret of the vault is written vault:PATH#FIELD, for example vault:secret/data/hubspot#token"
        )
    return VaultReference(found["path"], found["field"])
