"""The settings of a database connection, and what we depend on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from connectors.settings import SETTINGS, Timeout
from connectors.sql.actions import NAME_PATTERN

if TYPE_CHECKING:
    from sqlalchemy import URL

DRIVERS: Mapping[str, str] = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def _database_url(secret: SecretStr) -> SecretStr:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(secret.get_secret_value())
    except (ArgumentError, ValueError):
        raise ValueError("is no database URL, such as postgresql://user:password@host/name") from None
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise ValueError(f"must begin with postgresql:// or sqlite:///, not {url.get_backend_name()[:30]}://")
    if driver == "sqlite" and (not url.database or url.database == ":memory:"):
        raise ValueError(
            "needs a file, such as sqlite:////var/lib/warehouse.sqlite: memory does not outlive the process"
        )
    return SecretStr(url.set(drivername=driver).render_as_string(hide_password=False))


class SqlSettings(BaseModel):
    """One database."""

    model_config = SETTINGS

    url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        description="postgresql://user:password@host/name, or sqlite:///file."
    )
    username: SecretStr | None = Field(
        None,
        description="User, in place of one in `url`: for a user that is leased, `vault:database/creds/app#username`.",
    )
    password: SecretStr | None = Field(None, description="Its password.")
    database_schema: Annotated[str, Field(pattern=NAME_PATTERN)] | None = Field(
        None, description="Schema that the tables are in (PostgreSQL); it must exist. Default: the user's."
    )
    timeout_s: Timeout = Field(20.0, description="Seconds for one batch.")

    @property
    def address(self) -> URL:
        """The URL with user and password in it."""
        from sqlalchemy import make_url

        user, password = (None if one is None else one.get_secret_value() for one in (self.username, self.password))
        return make_url(self.url.get_secret_value()).set(username=user, password=password)


DEPENDENCY: Mapping[str, str] = {
    "vendor": "your own database",
    "api": "SQL over SQLAlchemy: SQLite 3.35+, PostgreSQL 12+",
    "version": "SQLAlchemy 2.1",
    "docs": "https://docs.sqlalchemy.org/en/21/",
    "quota": "none; 1,000 rows a transaction",
    "sla": "yours",
    "criticality": "reports are old while it is away; nothing is lost",
    "fallback": "lanes wait; rewind rebuilds the tables",
    "owner": "the subscription's owner",
}
"""The manifest of connectors.md rule 9."""
