"""What is in a package for services: pure text out of contracts, and the publisher's modules."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from ops.package.vendored import LIBRARIES, OURS, moved, vendored
from ops.package.version import version
from ops.package.wheel import Metadata, wheel
from schemas.checker import kind, logical
from schemas.contract import Contract, Contracts
from schemas.errors import InputError
from schemas.generate import attribute, generated, module_of

ENGINE = "event-backbone"
CODE = "_backbone"
"""The folder of what is taken from the engine."""
WINDOW: Mapping[str, str] = {
    "Acknowledgement": "producers.publisher",
    "BackboneError": "schemas.errors",
    "Backpressure": "producers.errors",
    "Contract": "schemas.contract",
    "Contracts": "schemas.contract",
    "Event": "schemas.event",
    "EventRejected": "producers.errors",
    "InputError": "schemas.errors",
    "KafkaPublisher": "producers.publisher",
    "MemoryPublisher": "producers.memory",
    "PublishUnknown": "producers.errors",
    "Published": "producers.facts",
    "Publisher": "producers.publisher",
    "PublisherSettings": "producers.settings",
    "Record": "schemas.event",
    "RefusedError": "schemas.errors",
    "RegistryUnavailableError": "schemas.registry",
}
"""What a package offers beside its events, with the module each name is found in."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_NAME_MAX = 60
_VALUES: Mapping[str, Any] = {"string": "text", "int": 1, "long": 1, "float": 1.0, "double": 1.0, "boolean": True}
"""What stands in an example for a type, where its field gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A finished package: what it is called, imported as, and its wheel."""

    name: str
    module: str
    version: str
    file_name: str
    wheel: bytes
    events: int


def package(name: str, contracts: Contracts, *, project: str, changed_at: datetime) -> Package:
    """The package ``name`` of these contracts, which changed last at that time. The same arguments and the same
    engine give the same bytes.

    Raises InputError for a name that no package can have, no contracts, or events that cannot be classes.
    """
    module = import_name(name)
    if not contracts:
        raise InputError("There is no contract to make a package of: write one, backbone schema check finds faults.")
    files = package_files(module, contracts)
    engine = distribution(ENGINE)
    requires = [one for one in engine.requires or () if re.split(r"[^A-Za-z0-9._-]", one)[0] in LIBRARIES.values()]
    license_text = engine.read_text("licenses/LICENSE")
    found = Metadata(
        name=name,
        version="",
        summary=f"The events of {project}, typed, and the publisher that puts them on Kafka.",
        requires_python=engine.metadata["Requires-Python"],
        requires=sorted(requires),
        description=description(name, module, project, contracts),
        generator=f"{ENGINE} {engine.version}",
        licenses={} if license_text is None else {f"LICENSE.{ENGINE}": license_text},
    )
    found = replace(found, version=version(changed_at, {**files, "METADATA": found.text()}))
    return Package(
        name=name,
        module=module,
        version=found.version,
        file_name=found.file_name,
        wheel=wheel(found, files),
        events=len(contracts),
    )


def import_name(name: str) -> str:
    """What a package of this name is imported as (``acme_events``). Raises InputError with what is wrong."""
    if not _NAME.match(name) or len(name) > _NAME_MAX:
        raise InputError(
            f"--name: a package's name is at most {_NAME_MAX} lower-case letters, digits and single dashes, a letter "
            "first, like acme-events."
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise InputError(f"--name: '{name}' is a word of Python's own. Take another, like {name}-events.")
    if module in sys.stdlib_module_names:
        raise InputError(f"--name: '{name}' is a module of Python's own. Take another, like {name}-events.")
    if module in {*LIBRARIES, *OURS, "connectors", "consumers", "ops", ENGINE.replace("-", "_")}:
        raise InputError(f"--name: '{name}' is in use for something else. Take another, like acme-events.")
    return module


def package_files(module: str, contracts: Contracts) -> dict[str, str]:
    """Every file of the package by its path, the folder ``module`` included. Raises InputError for a domain whose
    module would stand in the place of another."""
    code = f"{module}.{CODE}"
    models = {str(path): text for path, text in generated(contracts).items() if path.name != "__init__.py"}
    for path in models:
        if path == f"{CODE}.py":
            raise InputError(f"An event's domain cannot be '{CODE}' in a package: rename it.")
    files = {"__init__.py": window(module), "py.typed": ""}
    files |= {path: moved(text, code, path) for path, text in models.items()}
    files |= {
        f"avsc/{contract.domain.replace('.', '/')}/{contract.name.rpartition('.')[2]}.avsc": avsc_text(contract)
        for contract in contracts.values()
    }
    files[f"{CODE}/__init__.py"] = (
        f'"""Taken from {ENGINE}; not for use by name: what is promised is one level up."""\n'
    )
    files |= {f"{CODE}/{path}": text for path, text in vendored(code).items()}
    return {f"{module}/{path}": text for path, text in sorted(files.items())}


def avsc_text(contract: Contract) -> str:
    """The contract's Avro file."""
    return json.dumps(contract.schema, ensure_ascii=False, indent=2) + "\n"


def window(module: str) -> str:
    """The package's ``__init__.py``: names are loaded when they are first used, so that a test with the
    MemoryPublisher does not load Kafka's client."""
    by_module: dict[str, list[str]] = {}
    for name, place in WINDOW.items():
        by_module.setdefault(place, []).append(name)
    lines = [
        '"""Typed events, and the publisher that puts them on Kafka. Made by `backbone schema package`."""',
        "",
        "from __future__ import annotations",
        "",
        "from importlib import import_module as _import_module",
        "from typing import TYPE_CHECKING, Any as _Any",
        "",
        "if TYPE_CHECKING:",
        *(f"    from {module}.{CODE}.{place} import {', '.join(names)}" for place, names in sorted(by_module.items())),
        "",
        "    CONTRACTS: Contracts",
        '    """The contract of every event of this package, by its name."""',
        "",
        "__all__ = [",
        *(f'    "{name}",' for name in sorted([*WINDOW, "CONTRACTS"])),
        "]",
        "",
        "if not TYPE_CHECKING:",
        "    _MODULES = {",
        *(f'        "{name}": "{place}",' for name, place in WINDOW.items()),
        "    }",
        "",
        "    def __getattr__(name: str) -> _Any:",
        '        if name == "CONTRACTS":',
        "            from pathlib import Path",
        "",
        f"            from {module}.{CODE}.schemas.contract import load_contracts",
        "",
        '            found = load_contracts(Path(__file__).parent / "avsc")',
        "        elif name in _MODULES:",
        f'            found = getattr(_import_module(f"{module}.{CODE}.{{_MODULES[name]}}"), name)',
        "        else:",
        f"            raise AttributeError(f\"module '{module}' has no attribute '{{name}}'\")",
        "        globals()[name] = found",
        "        return found",
    ]
    return "\n".join(lines) + "\n"


def description(name: str, module: str, project: str, contracts: Contracts) -> str:
    """What the package says of itself to who installs it, as Markdown, with an example that runs."""
    shown = min(contracts.values(), key=_hard_to_show)
    rows = [
        f"| `{one.name}` | `{one.topic}` | `{module}.{module_of(one.domain)}` | {_cell(one.doc)} |"
        for one in contracts.values()
    ]
    text = Path(__file__).with_name("DESCRIPTION.md").read_text("utf-8")
    words = {
        "name": name, "module": module, "project": project, "event": shown.name, "events": "\n".join(rows),
        "example": example(module, shown),
    }  # fmt: skip
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], text)


def example(module: str, contract: Contract) -> str:
    """Lines that publish this event; a value that cannot be made up simply is left to the reader."""
    given = [(attribute(field["name"]), _value(field)) for field in _required(contract)]
    name = contract.name.rpartition(".")[2]
    uses_time = any("datetime" in value for _, value in given)
    lines = ["from datetime import UTC, datetime", ""] if uses_time else []
    lines += [f"from {module} import Publisher", f"from {module}.{module_of(contract.domain)} import {name}", ""]
    lines += [f"event = {name}(", *(f"    {field}={value}," for field, value in given), ")"]
    lines += ["with Publisher.from_env() as publisher:"]
    lines += ['    publisher.publish(event, source="my-service").result(timeout=10)']
    return "\n".join(lines)


def _hard_to_show(contract: Contract) -> tuple[bool, int, str]:
    values = [_value(field) for field in _required(contract)]
    return "..." in values, len(values), contract.name


def _required(contract: Contract) -> list[Mapping[str, Any]]:
    return [field for field in contract.schema["fields"] if "default" not in field]


def _value(field: Mapping[str, Any]) -> str:
    """A value for the field as Python writes it; ``...`` where only a person can say one."""
    type_ = field["type"]
    name = logical(type_)
    if name is not None:
        return "datetime.now(UTC)" if name.startswith("timestamp-") else "..."
    if kind(type_) not in (*_VALUES, "enum"):
        return "..."
    return repr(next(iter(field.get("examples", ())), _VALUES.get(kind(type_), ...))).replace("Ellipsis", "...")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
