"""Errors a person meets, sorted by what the caller should do next; the command line turns each into its exit code.

Every message is one clear sentence that names the thing and what to do; never a payload, a secret or personal data.
"""

from __future__ import annotations

from typing import ClassVar


class BackboneError(Exception):
    """Something went wrong that a person can understand; ``str(error)`` is the sentence to show."""

    exit_code: ClassVar[int] = 1


class InputError(BackboneError):
    """What was typed or written in a file is wrong: correct it and try again."""

    exit_code = 2


class CheckFailedError(BackboneError):
    """It was checked, and the answer is no (late, incompatible, different, findings)."""

    exit_code = 3


class NotAllowedError(BackboneError):
    """The cluster, the registry or a vendor does not permit it to this user."""

    exit_code = 4


class NotFoundError(BackboneError):
    """There is nothing of that name or id; the message suggests the nearest one."""

    exit_code = 5


class RefusedError(BackboneError):
    """A precondition does not hold, the plan is stale or it was not confirmed: nothing was changed."""

    exit_code = 6


class PartlyDoneError(BackboneError):
    """Some of it was done; the message says what was and how to go on or back."""

    exit_code = 7


class UnreachableError(BackboneError):
    """The cluster, the registry or the stack cannot be reached in time: try again when it is back."""

    exit_code = 8
