"""What it means that a Kafka cluster answers and does not let us in. Pure."""

from __future__ import annotations

from schemas.errors import BackboneError, NotAllowedError, UnreachableError


def refused_login(name: str, said: str, address: str, place: str) -> BackboneError:
    """By librdkafka's name of the error and its words, which are looked into and not repeated. ``place`` is where the
    settings stand."""
    if name != "_SSL":
        return NotAllowedError(
            f"The Kafka cluster at {address} refuses our login ({name}): look at the credentials in {place}."
        )
    if "certificate verify failed" in said:  # the client says the same of both
        return UnreachableError(
            f"The certificate of the Kafka cluster at {address} is not trusted here: it was signed by nobody in "
            f"ssl.ca.location, or it is another host's. Look at {place}."
        )
    return NotAllowedError(
        f"The Kafka cluster at {address} refuses our certificate, or wants one: look at "
        f"ssl.certificate.location in {place}."
    )
