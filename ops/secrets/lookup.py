"""What references stand for, looked up for one context, and kept as fresh as its places allow.

A variable is what the process was started with. A file is read each time. A secret of the vault is read once and kept:
its fields belong together (user and password of one lease), and reading a dynamic one makes a new one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.project_file import ProjectFileError
from ops.secrets.reference import WRITE, is_reference, vault_reference
from ops.secrets.vault import RENEW_AT, Secret, Vault, field_of
from schemas.errors import BackboneError, InputError

STATIC_S = 60.0
"""How often a secret without a lease is read again: nobody tells us that it was changed."""
AGAIN_S = 10.0
"""How long after a renewal that failed it is tried again; the value there is stays in use."""


@dataclass(slots=True)
class _Kept:
    secret: Secret
    due: float
    ends: float
    """when its lease does, by the clock; infinite without one"""
    failing: bool = False


class Secrets:
    """The credentials of one context. Blocks; may be called from any thread.

    ``file``: the backbone.toml that the references stand in; files that they name are relative to its folder.
    ``vault`` opens the context's vault and raises InputError where it has none."""

    def __init__(
        self,
        file: Path,
        environment: Mapping[str, str],
        vault: Callable[[], Vault],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project_file, self._environment, self._open, self._clock = file, environment, vault, clock
        self._vault: Vault | None = None
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.RLock()

    def look_up(self, reference: str) -> str:
        """What a reference stands for, without a line end at its end. Raises InputError naming the variable or file,
        never a content; what the vault raises."""
        kind, _, name = reference.partition(":")
        match kind:
            case "env":
                value = self._environment.get(name)
                if not value:
                    raise InputError(f"the environment variable {name} is not set where this runs; set it")
                return value
            case "file":
                return self._file(self._project_file.parent / name)
            case "vault":
                wanted = vault_reference(name)
                return field_of(self._secret(wanted.path), wanted.path, wanted.field)
            case _:
                raise InputError(f"a credential does not stand here. {WRITE.removesuffix('.')}")

    def resolved(self, value: Any, place: str) -> Any:
        """A value, or a table of them, with its references looked up. Raises ProjectFileError where one stands for
        nothing, and what the vault raises, each naming the key after ``place``."""
        if isinstance(value, dict):
            return {key: self.resolved(item, f"{place}.{key}") for key, item in value.items()}
        if not is_reference(value):
            return value
        try:
            return self.look_up(value)
        except ProjectFileError:
            raise  # about what opens the vault, which it names
        except InputError as error:
            raise ProjectFileError(self._project_file, "unresolved-reference", f"{place}: {error}.") from None
        except BackboneError as error:
            raise type(error)(f"{place}: {str(error).removesuffix('.')}.") from None

    def refresh(self) -> list[str]:
        """Renew the leases that are due and read the others again. Answers what could not be, one sentence each: the
        values there were stay in use, and it is tried again in ``AGAIN_S``."""
        failed = []
        with self._lock:
            now = self._clock()
            for path, kept in list(self._kept.items()):
                if now < kept.due:
                    continue
                try:
                    self._keep(path, self._fresh(path, kept.secret))
                except BackboneError as error:
                    kept.due = now + AGAIN_S
                    kept.failing = True
                    failed.append(str(error) if isinstance(error, ProjectFileError) else f"{error}.")
        return failed

    def ending(self, references: Iterable[str]) -> float | None:
        """When the first of the leases that these name ends, in seconds since the epoch, of those whose renewal fails
        now; None: none. A lease that is renewed has no end to anybody. Does not block on the vault."""
        paths = {vault_reference(one.removeprefix("vault:")).path for one in references if one.startswith("vault:")}
        kept = [one for path, one in list(self._kept.items()) if path in paths and one.failing and one.ends < math.inf]
        ends = min((one.ends for one in kept), default=None)
        return None if ends is None else time.time() + ends - self._clock()

    def _fresh(self, path: str, secret: Secret) -> Secret:
        vault = self._opened()
        return vault.renew(secret) or vault.read(path)

    def _secret(self, path: str) -> Secret:
        with self._lock:
            kept = self._kept.get(path)
            return self._keep(path, self._opened().read(path)) if kept is None else kept.secret

    def _keep(self, path: str, secret: Secret) -> Secret:
        now = self._clock()
        due, ends = (secret.seconds * RENEW_AT, secret.seconds) if secret.lease else (STATIC_S, math.inf)
        self._kept[path] = _Kept(secret, now + due, now + ends)
        return secret

    def _opened(self) -> Vault:
        if self._vault is None:
            self._vault = self._open()
        return self._vault

    def _file(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the path
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"the file {path} cannot be read ({reason}); write the credential there") from None
