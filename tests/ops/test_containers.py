"""The small programs that only containers use: forwarding to another container, and asking for health."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.asks import answers
from ops.local.fakes import read_fakes
from ops.local.forward import forward, read
from ops.local.ports import choose
from tests.conftest import ROOT
from tests.waiting import eventually


def test_forwards_and_a_command_are_read_and_anything_else_is_refused() -> None:
    assert read(["1=a:2", "3=b:4", "--", "run", "--x=1"]) == ([(1, "a", 2), (3, "b", 4)], ["run", "--x=1"])
    assert read(["--", "run"]) == ([], ["run"])
    for wrong in ([], ["1=a:2"], ["1=a:2", "--"], ["a=b:c", "--", "run"], ["1=:2", "--", "run"], ["x", "--", "run"]):
        assert read(wrong) is None


async def test_what_is_sent_arrives_both_ways_and_ends_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))
        writer.close()

    there = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = choose(["here"], {})["here"]
    here = await forward(port, "127.0.0.1", there.sockets[0].getsockname()[1])
    payload = bytes(range(256)) * 2000
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(payload)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), 10) == payload
    writer.close()
    here.close()
    there.close()


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    ports = choose(["here", "nowhere"], {})
    here = await forward(ports["here"], "127.0.0.1", ports["nowhere"])
    reader, writer = await asyncio.open_connection("127.0.0.1", ports["here"])
    assert await asyncio.wait_for(reader.read(1), 10) == b""
    writer.close()
    here.close()


def test_the_command_gets_the_signal_and_its_exit_code_is_passed_on() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True); signal.pause()"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.local.forward", "--", sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 7
    process.stdout.close()


def test_every_vendors_fake_listens_on_the_port_it_was_given_and_answers_its_health(tmp_path: Path) -> None:
    from connectors.connector import connector_types

    faked = sorted(name for name, kind in connector_types().items() if kind.fake is not None)
    ports = choose(faked, {})
    state = tmp_path / "fakes.json"
    command = [sys.executable, "-m", "ops.local.vendors", "--state", str(state), "--host", "0.0.0.0"]
    vendors = subprocess.Popen(
        [*command, *(f"--port={name}={port}" for name, port in ports.items())], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        urls = eventually(lambda: read_fakes(state, pid=vendors.pid))
        assert urls is not None
        assert set(urls) == set(faked)
        for port in ports.values():
            assert answers(f"http://127.0.0.1:{port}/__fake__/report")
        assert not answers(f"http://127.0.0.1:{ports[faked[0]]}/nothing-here")
        taken = subprocess.run(
            [*command, f"--port={faked[0]}={ports[faked[0]]}"], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        assert (taken.returncode, "Traceback" in taken.stderr) == (1, False)
    finally:
        vendors.send_signal(signal.SIGTERM)
        assert vendors.wait(20) == 0
        assert vendors.stderr is not None
        assert vendors.stderr.read() == b""
        vendors.stderr.close()
    assert not answers(f"http://127.0.0.1:{ports[faked[0]]}/__fake__/report")


@pytest.mark.parametrize("wrong", ["hubspot", "hubspot=", "hubspot=0", "hubspot=x", "=1", "nobody=8181"])
def test_a_port_that_is_written_wrong_is_explained(tmp_path: Path, wrong: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.local.vendors", f"--state={tmp_path / 'f'}", f"--port={wrong}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "hubspot=8181" in done.stderr or "There are: hubspot" in done.stderr
