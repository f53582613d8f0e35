"""Start-up caches of the JVM (JEP 514): made once in a training run beside the programs, used by every start after it.

A cache is a hint: the JVM itself checks that it fits its version and class path, and starts without it otherwise.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ops.local.artifacts import Artifacts
from ops.local.java import Java
from ops.local.kafka import Kafka
from ops.local.ports import choose
from ops.local.process import ProcessId, running, spawn, stop
from ops.local.registry import Registry

TRAINING_MAX_S = 60.0
WRITING_MAX_S = 120.0
POLL_S = 0.05


class Program(Protocol):
    """What a cache can be made for."""

    @property
    def cache(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    def command(self, *jvm: str) -> list[str]: ...
    def prepare(self, say: Callable[[str], None]) -> None: ...
    def ready(self) -> bool: ...


def jvm_options(cache: Path) -> list[str]:
    """What to tell the JVM: use the cache if there is one, and neither stop nor complain if it does not fit."""
    if not cache.is_file():
        return []
    return [f"-XX:AOTCache={cache}", "-XX:AOTMode=auto", "-Xlog:disable", "-Xlog:all=error:stderr"]


def make_caches(
    java: Java, programs: Artifacts, say: Callable[[str], None], remember: Callable[[Mapping[str, ProcessId]], None]
) -> None:
    """Make the caches that are missing, from one start of each program on throw-away data. Blocks some 15 s then.

    The caller is alone on the programs' folder. ``remember`` is told what runs for it, so that a kill of ours leaves
    no process that nobody knows. A training that fails is said and leaves no cache: only speed depends on it.
    """
    if not java.makes_aot_cache:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ports = choose(("kafka", "controller", "registry", "management"), {})
        both: dict[str, Program] = {
            "registry-training": Registry(java, programs, folder / "registry", ports["registry"], ports["management"]),
            "kafka-training": Kafka(java, programs, folder / "kafka", ports["kafka"], ports["controller"]),
        }
        missing = {name: program for name, program in both.items() if not program.cache.is_file()}
        if not missing:
            return
        say("preparing faster starts (once, about 15 s)")
        processes: dict[str, ProcessId] = {}
        try:
            for name, program in missing.items():
                program.prepare(lambda _words: None)
                processes[name] = _train(program)
                remember(processes)
            until = time.monotonic() + TRAINING_MAX_S
            for name, process in processes.items():
                while not missing[name].ready() and running(process) and time.monotonic() < until:
                    time.sleep(POLL_S)
        finally:
            # on SIGTERM a JVM writes its cache before it ends, which takes seconds
            for name, process in processes.items():
                stop(process, grace_s=WRITING_MAX_S)
                _keep(missing[name].cache, say)
            remember({})


def _partial(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.partial")


def _train(program: Program) -> ProcessId:
    partial = _partial(program.cache)
    partial.unlink(missing_ok=True)
    command = program.command(f"-XX:AOTCacheOutput={partial}")
    return spawn(command, log=program.folder / "training.log", folder=program.folder)


def _keep(cache: Path, say: Callable[[str], None]) -> None:
    partial = _partial(cache)
    if partial.is_file():
        partial.replace(cache)
    else:
        say(f"no start-up cache could be made ({cache.name}); starts take some seconds longer")
    # the JVM leaves the configuration that it derived the cache from beside it
    Path(f"{partial}.config").unlink(missing_ok=True)
