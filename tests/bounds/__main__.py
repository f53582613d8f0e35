"""Reads every hostile text of one kind under hard limits: ``python -m tests.bounds KIND``, a line of JSON a text.

Run in a process of its own, because the limits are the process's and because some of what is guarded against ends it.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from connectors.connector import connector_types
from consumers.subscription import check_subscription
from ops.settings import load_project
from schemas.contract import Contracts, load_contract, load_contracts
from schemas.errors import BackboneError
from schemas.lint import lint, lint_folder
from tests.bounds.texts import CORPUS
from tests.conftest import ROOT

MEMORY_MAX = 200 << 20
CPU_MAX_S = 2


def _contract(folder: Path, content: bytes) -> str:
    file = folder / "billing" / "InvoicePaid.avsc"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    found = lint(file)
    said = [str(one) for one in [*found, *lint_folder(folder)]]
    try:
        load_contract(file)
    except BackboneError as error:
        said.append(str(error))
    return " ".join(said)


class _Subscription:
    def __init__(self) -> None:
        project = load_project(ROOT)
        self._contracts: Contracts = load_contracts(ROOT / "schemas" / "events")
        self._connections = project.connection_types(connector_types())

    def __call__(self, folder: Path, content: bytes) -> str:
        file = folder / "crm-contacts.yaml"
        file.write_bytes(content)
        (folder / "crm_contacts.py").write_bytes((ROOT / "consumers/subscriptions/crm_contacts.py").read_bytes())
        _, found = check_subscription(file, contracts=self._contracts, connections=self._connections)
        return " ".join(map(str, found))


def _project(folder: Path, content: bytes) -> str:
    file = folder / "backbone.toml"
    file.write_bytes(content)
    said = []
    try:
        project = load_project(folder)
        types = project.connection_types(connector_types())
        contexts = [project.context(name) for name in list(project.contexts)[:50]]
    except BackboneError as error:
        return str(error)
    for context in contexts:
        for ask in (
            lambda context: context.kafka,
            lambda context: context.kafka_shown(),
            lambda context: context.registry_shown(),
            lambda context: context.registry_credentials(),
            lambda context: context.ledger,
            lambda context: [one.shown() for one in context.connections.values()],
            lambda context: [one.settings(types[name]) for name, one in context.connections.items()],
        ):
            try:
                ask(context)
            except BackboneError as error:
                said.append(str(error))
    return " ".join(said)


def _misbehaving(folder: Path, content: bytes) -> str:
    """Not a reader of ours: it does what the limits are for, so that a test sees them at work."""
    if content == b"raise":
        raise ValueError
    if content == b"eat":
        return str(len(bytearray(2 * MEMORY_MAX)))
    while content == b"spin":
        pass
    return ""


READERS: Mapping[str, Callable[[], Callable[[Path, bytes], str]]] = {
    "contract": lambda: _contract,
    "project": lambda: _project,
    "subscription": _Subscription,
    "misbehaving": lambda: _misbehaving,
}


def main(kind: str) -> None:
    read = READERS[kind]()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        texts = list(CORPUS[kind]())
        read(folder, texts[0][1])  # what is imported and kept by the first one counts for nobody
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_MAX, -1))
        for name, content in texts:
            sys.stdout.write(json.dumps({"begins": name}) + "\n")
            sys.stdout.flush()
            began = time.process_time()
            resource.setrlimit(resource.RLIMIT_CPU, (int(began) + CPU_MAX_S + 2, -1))
            try:
                said, problem = read(folder, content), ""
            except BaseException:  # whatever it is, it is what is looked for
                said, problem = "", traceback.format_exc(limit=-4)
            row = {
                "name": name,
                "cpu_s": round(time.process_time() - began, 3),
                "problem": problem,
                "said": said[:2000],
            }
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
