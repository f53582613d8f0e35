"""The report of a whole run, for people who were not there: ``RESULTS.md``, written by ``make bench``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import confluent_kafka

from ops.benchmarks.measure import HEADINGS, Line

FILE = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("confluent-kafka", "fastavro", "pydantic", "aiohttp", "uvloop", "SQLAlchemy", "prometheus-client")


def machine() -> str:
    """What the numbers were measured on."""
    with open("/proc/meminfo") as lines:
        memory = int(next(line for line in lines if line.startswith("MemTotal")).split()[1]) / (1 << 20)
    with open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release().partition('-')[0]}"


def versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, librdkafka {confluent_kafka.libversion()[0]}, {packages}"


def write(lines: Sequence[Line], rounds: int, loads: Sequence[float], how: str, failed: Sequence[str] = ()) -> None:
    """Write the report. ``loads`` are the machine's load averages during the run: above the number of cores, others
    were at work too and every rate is lower than it would be alone. ``failed``: what could not be measured."""
    table = [HEADINGS, ("---", "---", *["---:"] * 5, "---"), *(line.cells() for line in lines)]
    rows = "\n".join(f"| {' | '.join(cell.strip().replace('|', chr(92) + '|') for cell in cells)} |" for cells in table)
    FILE.write_text(
        f"""# Results of `make bench`

Written by the script itself on {datetime.now(UTC):%Y-%m-%d}; do not edit. Medians of {rounds} interleaved rounds.

- Machine: {machine()}. Kafka, the registry, the vendors' fakes and the measured process share it.
- Load average (1 min) during the run: {min(loads):.1f} to {max(loads):.1f}.
- {versions()}.{"".join(f"{chr(10)}- Could not be measured: {one}." for one in failed)}

{rows}

{how}
"""
    )
