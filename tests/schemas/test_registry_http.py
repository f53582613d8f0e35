"""The registry over HTTP when things go wrong: bounded waits, typed errors, a cache that lasts, no secrets."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from schemas import registry as module
from schemas.errors import InputError
from schemas.registry import (
    HttpRegistry,
    IncompatibleSchemaError,
    NotAvroError,
    RegistryNotAllowedError,
    RegistryUnavailableError,
    SchemaNotFoundError,
    open_registry,
)

SCHEMA = json.dumps(
    {"type": "record", "name": "Thing", "namespace": "test", "fields": [{"name": "a", "type": "string"}]}
)
NOT_FOUND = (404, {"error_code": 40403, "message": "Schema not found"})


class Server:
    """A real HTTP server on a free port that answers what it is told to and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.default: tuple[int, Any] = (200, {"schema": SCHEMA})
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections: set[Any] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.command, self.path, headers, body))
                outer.connections.add(self.client_address)
                status, answer = outer.answers.pop(0) if outer.answers else outer.default
                if callable(answer):
                    answer(self)
                    return
                text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                if 300 <= status < 400:
                    self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                """Nothing: the tests look at ``asked``."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up: that is tested here
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def open_one(server: Server, clock: Clock, waits: list[float]) -> Callable[..., HttpRegistry]:
    return lambda **options: HttpRegistry(server.url, clock=clock, wait=waits.append, **options)


Open = Callable[..., HttpRegistry]


def test_a_schema_is_asked_for_once_and_kept(server: Server, open_one: Open) -> None:
    registry = open_one()
    assert [registry.schema(1) for _ in range(3)] == [SCHEMA] * 3
    assert [(method, path) for method, path, _, _ in server.asked] == [("GET", "/schemas/ids/1")]


def test_a_schema_on_disk_outlives_the_process_and_the_registry(server: Server, open_one: Open, tmp_path: Path) -> None:
    assert open_one(cache=tmp_path).schema(1) == SCHEMA
    server.default = (500, {})
    assert open_one(cache=tmp_path).schema(1) == SCHEMA
    assert len(server.asked) == 1


def test_what_a_look_up_answered_once_holds_while_the_registry_is_away(
    server: Server, open_one: Open, tmp_path: Path
) -> None:
    """A worker that was started with the registry away could write no receipts, and so commit nothing."""
    server.default = (200, {"subject": "t-e", "version": 2, "id": 7, "schema": SCHEMA})
    known = open_one(cache=tmp_path).lookup("t-e", SCHEMA)
    server.default = (503, {})
    assert open_one(cache=tmp_path).lookup("t-e", SCHEMA) == known
    with pytest.raises(RegistryUnavailableError):
        open_one(cache=tmp_path).lookup("t-e", '"string"')


def test_a_broken_file_in_the_cache_is_asked_for_again_and_mended(
    server: Server, open_one: Open, tmp_path: Path
) -> None:
    open_one(cache=tmp_path).schema(1)
    (file,) = tmp_path.rglob("*.avsc")
    file.write_text(SCHEMA[:20])
    assert open_one(cache=tmp_path).schema(1) == SCHEMA
    assert file.read_text() == SCHEMA
    assert not list(tmp_path.rglob(".partial*"))


def test_two_registries_share_no_cached_ids(server: Server, open_one: Open, tmp_path: Path) -> None:
    open_one(cache=tmp_path).schema(1)
    other = Server()
    try:
        other.default = (200, {"schema": '"string"'})
        assert HttpRegistry(other.url, cache=tmp_path).schema(1) == '"string"'
    finally:
        other.stop()


def test_a_cache_that_cannot_be_written_is_said_once_and_nothing_fails(
    server: Server, open_one: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = open_one(cache=tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        assert registry.schema(1) == registry.schema(2) == SCHEMA
    assert len([one for one in caplog.records if "not kept on disk" in one.getMessage()]) == 1


def test_an_unknown_id_is_not_asked_for_again_for_30_seconds(server: Server, open_one: Open, clock: Clock) -> None:
    registry = open_one()
    server.default = NOT_FOUND
    for _ in range(3):
        with pytest.raises(SchemaNotFoundError, match="no schema 7"):
            registry.schema(7)
    assert len(server.asked) == 1
    clock.now += 31
    server.default = (200, {"schema": SCHEMA})
    assert registry.schema(7) == SCHEMA


def test_a_registry_that_stumbles_is_asked_three_times_with_growing_jitter(
    server: Server, open_one: Open, waits: list[float]
) -> None:
    server.answers = [(500, {}), (503, b"<html>")]
    assert open_one().schema(1) == SCHEMA
    assert len(server.asked) == 3
    assert len(waits) == 2
    assert 0 <= waits[0] <= 0.2
    assert 0 <= waits[1] <= 0.4


def test_a_registry_that_stays_down_fails_at_once_for_a_while_and_then_is_tried_again(
    server: Server, open_one: Open, clock: Clock
) -> None:
    registry = open_one()
    server.default = (503, {})
    for _ in range(3):
        with pytest.raises(RegistryUnavailableError, match="503"):
            registry.schema(1)
    asked = len(server.asked)
    with pytest.raises(RegistryUnavailableError, match="few seconds"):
        registry.schema(1)
    assert len(server.asked) == asked
    clock.now += 6
    server.default = (200, {"schema": SCHEMA})
    assert registry.schema(1) == SCHEMA


def test_known_schemas_flow_while_the_registry_is_away(server: Server, open_one: Open) -> None:
    registry = open_one()
    registry.schema(1)
    server.default = (503, {})
    for _ in range(4):
        with pytest.raises(RegistryUnavailableError):
            registry.schema(2)
    assert registry.schema(1) == SCHEMA


def test_nobody_listening_is_unavailable_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    registry = HttpRegistry(f"http://127.0.0.1:{port}", wait=lambda _: None)
    with pytest.raises(RegistryUnavailableError) as caught:
        registry.subjects()
    assert str(caught.value) == "the registry cannot be reached (NewConnectionError)."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>hello</html>"), "is this the registry's address"),
        ((200, b"[" * 100_000), "is this the registry's address"),
        ((404, b"<html>not found</html>"), "is this the registry's address"),
        ((404, {"detail": "Not Found"}), "is this the registry's address"),
        ((302, {}), "a redirect, which is not followed"),
        ((200, b"x" * (5 << 20)), "more than 4 MiB"),
        ((200, {"schma": 1}), "an answer without 'schema'"),
        ((400, {"error_code": 40001, "message": "Bad"}), "answered 400"),
        ((200, []), "an answer without 'schema'"),
    ],
)
def test_what_does_not_behave_like_a_registry_is_said_so(
    server: Server, open_one: Open, answer: tuple[int, Any], said: str
) -> None:
    server.default = answer
    with pytest.raises(RegistryUnavailableError, match=said):
        open_one().schema(1)
    assert all(path == "/schemas/ids/1" for _, path, _, _ in server.asked)


def test_an_answer_that_trickles_is_given_up(server: Server, open_one: Open, clock: Clock) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                clock.now += 1
        except OSError:
            pass  # the client has hung up, as it should

    server.default = (200, trickle)
    with pytest.raises(RegistryUnavailableError):
        open_one().schema(1)


def test_an_answer_cut_off_is_unavailable(server: Server, open_one: Open) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True

    server.default = (200, cut)
    with pytest.raises(RegistryUnavailableError):
        open_one().schema(1)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_are_not_tried_again(server: Server, open_one: Open, status: int) -> None:
    server.default = (status, b"<html>")
    with pytest.raises(RegistryNotAllowedError, match=str(status)):
        open_one().schema(1)
    assert len(server.asked) == 1


def test_an_incompatible_schema_is_told_in_the_registrys_words(server: Server, open_one: Open) -> None:
    server.default = (409, {"error_code": 409, "message": "Incompatible:\n  field a"})
    with pytest.raises(IncompatibleSchemaError, match="Incompatible: field a"):
        open_one().register("s", SCHEMA)


def test_a_schema_of_another_kind_is_said_so(server: Server, open_one: Open) -> None:
    server.default = (200, {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"})
    with pytest.raises(NotAvroError, match="'PROTOBUF', not Avro"):
        open_one().schema(1)


def test_references_that_go_round_in_a_circle_end(server: Server, open_one: Open) -> None:
    reference = {"name": "test.Thing", "subject": "s", "version": 1}
    server.default = (200, {"schema": SCHEMA, "references": [reference], "id": 1, "version": 1})
    with pytest.raises(InputError, match="circle"):
        open_one().schema(1)


def test_credentials_go_into_the_header_and_nowhere_else(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    open_registry(server.url, username="kim", password="s3cret").schema(1)
    open_registry(server.url, token="t0ken").schema(1)
    assert server.asked[0][2]["authorization"] == "Basic a2ltOnMzY3JldA=="
    assert server.asked[1][2]["authorization"] == "Bearer t0ken"
    server.default = (403, {"message": "no kim s3cret"})
    with pytest.raises(RegistryNotAllowedError) as caught:
        open_registry(server.url, username="kim", password="s3cret").schema(2)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(capfd.readouterr())


def test_the_environments_proxies_are_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert open_registry(server.url).schema(1) == SCHEMA


def test_connections_are_used_again(server: Server, open_one: Open) -> None:
    registry = open_one()
    for id in range(5):
        registry.schema(id)
    assert len(server.connections) == 1


def test_the_address_may_have_a_path_and_a_slash_at_its_end(server: Server) -> None:
    open_registry(f"{server.url}/apis/ccompat/v7/").schema(1)
    assert server.asked[0][1] == "/apis/ccompat/v7/schemas/ids/1"


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("registry.example:8081", {}, "http"),
        ("ftp://x", {}, "http"),
        ("http://", {}, "http"),
        ("memory://", {}, "http"),
        ("http://kim:s3cret@x", {}, "settings of their own"),
        ("http://x", {"token": "t", "username": "u"}, "one of them"),
        ("https://x", {"ca_file": "/nowhere.pem"}, "ca_file is no file"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_secrets(
    url: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        open_registry(url, **options)  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_a_file_registry_that_is_broken_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text("{")
    with pytest.raises(RegistryUnavailableError, match="is not a registry's file"):
        open_registry(f"file://{tmp_path}").subjects()
    (tmp_path / "in the way").write_text("")
    with pytest.raises(RegistryUnavailableError, match="cannot be"):
        open_registry(f"file://{tmp_path / 'in the way'}").register("s", SCHEMA)


def test_two_writers_of_a_file_registry_lose_nothing(tmp_path: Path) -> None:
    def work(number: int) -> None:
        registry = open_registry(f"file://{tmp_path}")
        for step in range(5):
            registry.register(
                f"s-{number}-{step}", json.dumps({"type": "fixed", "name": f"F{number}{step}", "size": 1})
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry = open_registry(f"file://{tmp_path}")
    assert len(registry.subjects()) == 20
    assert {json.loads(registry.schema(id))["name"] for id in range(1, 21)} == {
        f"F{number}{step}" for number in range(4) for step in range(5)
    }


def test_the_bounds_are_the_ones_promised() -> None:
    assert (module.TIMEOUT_S, module.TRIES, module.UNKNOWN_FOR_S) == (2.0, 3, 30.0)


LISTED = [{"schema": json.dumps({"type": "record", "name": f"T{n}", "fields": []})} for n in range(250)]


def listing(handler: BaseHTTPRequestHandler, *, pages: bool = True) -> None:
    """Answers as ``GET /schemas?latestOnly=true`` does, by the page that was asked for or not."""
    query = dict(pair.split("=") for pair in handler.path.partition("?")[2].split("&"))
    first, count = int(query["offset"]), int(query["limit"])
    text = json.dumps(LISTED[first : first + count] if pages else LISTED).encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)


@pytest.mark.parametrize("pages", [True, False])
def test_the_newest_schemas_are_asked_for_in_pages_and_whoever_ignores_them_is_noticed(
    server: Server, open_one: Open, pages: bool
) -> None:
    server.default = (200, lambda handler: listing(handler, pages=pages))
    assert open_one().listed_schemas() == sorted(one["schema"] for one in LISTED)
    assert len(server.asked) == (4 if pages else 2)  # the last one has nothing new


def test_a_whole_last_page_is_noticed(server: Server, open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 125)
    server.default = (200, listing)
    assert len(open_one().listed_schemas()) == 250
    server.default = (200, LISTED[:125])  # it ignores the page, and has exactly as many
    assert len(open_one().listed_schemas()) == 125


def test_a_page_with_nothing_new_is_not_the_end(
    server: Server, open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts under many subjects fill a page: what came behind it was not read."""
    monkeypatch.setattr(module, "PAGE", 3)
    one, two, three = LISTED[:3]
    server.answers = [(200, [one, two, one]), (200, [two, two, one]), (200, [three]), (200, [])]
    assert open_one().listed_schemas() == sorted(each["schema"] for each in LISTED[:3])


@pytest.mark.parametrize("missing", [(404, {"error_code": 404, "message": "HTTP 404 Not Found"}), (404, b"<html>")])
def test_a_registry_without_the_list_is_asked_subject_by_subject(
    server: Server, open_one: Open, missing: tuple[int, Any]
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        subject = handler.path.split("/")[2] if handler.path.count("/") > 1 else ""
        found: Any = {
            "": ["a", "b", "gone", "proto"],
            "a": {"subject": "a", "version": 1, "id": 1, "schema": SCHEMA},
            "b": {"subject": "b", "version": 1, "id": 1, "schema": SCHEMA},
            "gone": {"error_code": 40401, "message": "Subject not found"},
            "proto": {"subject": "proto", "version": 1, "id": 3, "schema": "syntax", "schemaType": "PROTOBUF"},
        }[subject]
        text = json.dumps(found).encode()
        handler.send_response(404 if subject == "gone" else 200)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.answers = [missing]
    server.default = (200, answer)
    assert open_one().listed_schemas() == [SCHEMA]


@pytest.mark.parametrize("answer", [{}, ["a"], [{"schma": 1}], [{"schema": 1}]])
def test_a_list_of_something_else_is_said(server: Server, open_one: Open, answer: Any) -> None:
    server.default = (200, answer)
    with pytest.raises(RegistryUnavailableError, match="a list of something other than schemas"):
        open_one().listed_schemas()


def test_references_of_a_listed_schema_are_written_out(server: Server, open_one: Open) -> None:
    line = {"type": "record", "name": "shop.Line", "fields": [{"name": "sku", "type": "string"}]}
    order = {"type": "record", "name": "shop.Order", "fields": [{"name": "line", "type": "shop.Line"}]}
    references = [{"name": "shop.Line", "subject": "lines", "version": 1}]
    listed = {"schema": json.dumps(order), "references": references}
    lines = (200, {"subject": "lines", "version": 1, "id": 1, "schema": json.dumps(line)})
    server.answers = [(200, [listed]), lines, (200, [])]
    server.default = (200, {"subject": "lines", "version": 1, "id": 1, "schema": json.dumps(line)})
    (text,) = open_one().listed_schemas()
    assert json.loads(text)["fields"][0]["type"]["name"] == "shop.Line"
