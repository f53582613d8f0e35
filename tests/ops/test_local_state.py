"""The files of a local stack: whole or not there, whoever writes and whatever stands in them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.local.fakes import ports_of, read_fakes, write_fakes
from ops.local.ports import accepts, choose, lowest_outgoing
from ops.local.process import ProcessId
from ops.local.state import Address, State, alone, write_json
from schemas.errors import RefusedError

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@same_folder
@given(
    st.dictionaries(st.text(max_size=8), st.builds(ProcessId, st.integers(1, 2**22), st.text(max_size=20)), max_size=4)
)
def test_processes_are_read_as_they_were_written(tmp_path: Path, processes: dict[str, ProcessId]) -> None:
    state = State(tmp_path)
    state.put_processes(processes)
    assert state.processes() == processes


@same_folder
@given(st.text(max_size=20), st.text(max_size=20), st.dictionaries(st.text(max_size=8), st.text(max_size=20)))
def test_the_address_is_read_as_it_was_written(
    tmp_path: Path, kafka: str, registry: str, fakes: dict[str, str]
) -> None:
    state = State(tmp_path)
    state.put_address(Address(kafka, registry, fakes))
    assert state.address() == Address(kafka, registry, fakes)
    assert set(json.loads((tmp_path / "local.json").read_text())) == {"kafka", "registry", "fakes"}


@same_folder
@given(ANY_JSON.map(json.dumps) | st.text() | st.binary())
def test_whatever_stands_in_a_file_counts_as_ours_or_as_nothing(tmp_path: Path, content: str | bytes) -> None:
    state = State(tmp_path)
    state.inner.mkdir(exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    for name in ("local.json", "local/processes.json", "local/ports.json", "local/fakes.json"):
        (tmp_path / name).write_bytes(raw)
    address = state.address()
    assert address is None or isinstance(address.kafka, str)
    assert all(isinstance(process.pid, int) for process in state.processes().values())
    assert all(0 < port < 65536 for port in state.ports().values())
    urls = read_fakes(state.inner / "fakes.json")
    assert all(port > 0 for port in ports_of(urls).values())


def test_an_address_that_was_withdrawn_is_gone_and_can_be_withdrawn_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put_address(Address("127.0.0.1:1", "http://127.0.0.1:2"))
    state.put_address(None)
    state.put_address(None)
    assert state.address() is None
    assert not (tmp_path / "local.json").exists()


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"number": 0})
    broken: list[str] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                json.loads(path.read_text())
            except ValueError as error:
                broken.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_json(path, {"number": number, "filling": "x" * 5000})
    ended.set()
    reader.join()
    assert broken == []
    assert [left.name for left in tmp_path.iterdir()] == ["file.json"]


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"kept": True})
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert json.loads(path.read_text()) == {"kept": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_second_of_two_at_once_waits_and_then_says_that_it_did_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with alone(lock), pytest.raises(RefusedError, match="nothing was changed"), alone(lock, wait_s=0.1):
        pass
    with alone(lock, wait_s=0.1):
        pass


def test_a_crash_leaves_no_lock_behind(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from ops.local.state import alone\n"
        "with alone(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False, timeout=30)
    assert killed.returncode == -9
    with alone(tmp_path / "lock", wait_s=1):
        pass


def test_the_fakes_of_an_earlier_process_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "fakes.json"
    write_json(path, {"pid": 1, "urls": {"hubspot": "http://127.0.0.1:4711"}})
    assert read_fakes(path, pid=2) is None
    assert read_fakes(path) == {"hubspot": "http://127.0.0.1:4711"}
    assert ports_of(read_fakes(path)) == {"hubspot": 4711}
    write_fakes(path, {"slack": "http://127.0.0.1:4712"})
    assert ports_of(read_fakes(path)) == {"slack": 4712}


def test_ports_are_kept_unless_somebody_else_has_one_of_them() -> None:
    first = choose(["a", "b", "c"], {})
    assert len(set(first.values())) == 3
    assert choose(["a", "b", "c"], first) == first
    import socket

    with socket.create_server(("127.0.0.1", first["b"])):
        assert accepts(first["b"])
        second = choose(["a", "b", "c"], first)
    assert second["b"] != first["b"]
    assert (second["a"], second["c"]) == (first["a"], first["c"])
    assert not accepts(first["b"])


def test_ports_are_not_those_that_the_system_takes_for_outgoing_connections() -> None:
    """A broker that was killed came back on another port: its own client, trying to reach it again, had been given
    the broker's port for its side of the connection."""
    ports = choose([str(number) for number in range(50)], {})
    assert len(set(ports.values())) == 50
    assert all(port < lowest_outgoing() for port in ports.values())


def test_two_names_never_get_one_port_even_if_they_had_it() -> None:
    port = choose(["a"], {})["a"]
    both = choose(["a", "b"], {"a": port, "b": port})
    assert both["a"] == port != both["b"]
