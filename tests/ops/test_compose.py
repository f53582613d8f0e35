"""docker-compose.yml against the Compose specification and against what the rest of the project says.

No Docker engine runs in the tests; where Docker's Compose is installed, it checks the file too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from ops.local.kafka import PROPERTIES
from ops.local.registry import COMPATIBILITY
from tests.conftest import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONTEXTS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "backbone.toml").read_text())["contexts"]
OURS = {"worker", "vendors"}
WRITTEN = {
    "image", "build", "restart", "ports", "environment", "volumes", "healthcheck", "command", "depends_on",
    "stop_grace_period",
}  # fmt: skip
CHECKED = {"test", "interval", "timeout", "retries", "start_period"}

services = pytest.mark.parametrize("name", sorted(SERVICES))


def published(name: str) -> dict[int, int]:
    """Container port by the port on this machine."""
    found = {}
    for port in SERVICES[name].get("ports", []):
        address, outer, inner = port.split(":")
        assert address == "127.0.0.1", f"{name} listens on {address}"
        found[int(outer)] = int(inner)
    return found


def test_the_services_are_those_of_the_issue() -> None:
    assert set(SERVICES) == {"kafka", "registry", "postgres", "prometheus", "grafana", "vendors", "worker"}
    assert set(COMPOSE) == {"name", "services", "volumes", "x-backbone"}


@services
def test_only_keys_of_the_specification_are_used(name: str) -> None:
    assert set(SERVICES[name]) <= WRITTEN
    for key, value in SERVICES[name].get("environment", {}).items():
        assert isinstance(value, str), f"{key} is not text: YAML would make something else of it"


@services
def test_every_image_is_pinned_to_a_full_version(name: str) -> None:
    if name in OURS:
        assert SERVICES[name]["image"] == "event-backbone:local"
        file = ROOT / SERVICES[name]["build"]["dockerfile"]
        assert re.search(r"^FROM python:3\.1\d\.\d+-", file.read_text(), re.MULTILINE)
    else:
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


@services
def test_every_service_says_how_its_health_is_seen(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert set(check) == CHECKED
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    for key in ("interval", "timeout", "start_period"):
        assert re.fullmatch(r"\d+s", check[key])


@services
def test_what_a_service_refers_to_exists(name: str) -> None:
    service = SERVICES[name]
    for needed, how in service.get("depends_on", {}).items():
        assert needed in SERVICES
        assert how == {"condition": "service_healthy"}
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        if source.startswith("./"):
            assert (ROOT / source).is_file(), f"{source}: Docker would make a folder of that name"
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


def test_no_volume_is_left_over_and_no_two_services_take_one_port() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used
    ports = [port for name in SERVICES for port in published(name)]
    assert len(ports) == len(set(ports))


def test_the_worker_can_be_scaled() -> None:
    assert "ports" not in SERVICES["worker"]
    assert "container_name" not in SERVICES["worker"]
    assert not SERVICES["worker"].get("volumes")


def test_the_contexts_name_what_the_services_publish() -> None:
    outside, inside = CONTEXTS["compose"], CONTEXTS["containers"]
    kafka = SERVICES["kafka"]["environment"]
    machine = outside["kafka"]["bootstrap.servers"]
    containers = inside["kafka"]["bootstrap.servers"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"] == f"MACHINE://{machine},CONTAINERS://{containers}"
    assert published("kafka") == {int(machine.rpartition(":")[2]): int(machine.rpartition(":")[2])}
    assert f"CONTAINERS://:{containers.rpartition(':')[2]}" in kafka["KAFKA_LISTENERS"]
    assert outside["registry"]["url"] == "http://127.0.0.1:8080/apis/ccompat/v7"
    assert inside["registry"]["url"] == "http://registry:8080/apis/ccompat/v7"
    assert published("registry") == {8080: 8080}
    warehouse = {"warehouse": "postgresql://backbone@127.0.0.1:5432/warehouse"}
    assert outside["fakes"] == inside["fakes"] | warehouse
    assert inside["fakes"]["warehouse"] == "postgresql://backbone@postgres:5432/warehouse"
    assert published("postgres") == {5432: 5432}
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == "warehouse"


def test_every_fake_is_published_and_brought_to_the_worker() -> None:
    from connectors.connector import connector_types

    faked = {name for name, kind in connector_types().items() if kind.fake is not None}
    fakes = {name: int(url.rpartition(":")[2]) for name, url in CONTEXTS["compose"]["fakes"].items() if name in faked}
    assert set(fakes) == faked
    given = dict(argument[7:].split("=") for argument in SERVICES["vendors"]["command"] if argument[:7] == "--port=")
    assert {name: int(port) for name, port in given.items()} == fakes
    assert published("vendors") == {port: port for port in fakes.values()}
    forwarded = [argument for argument in SERVICES["worker"]["command"] if "=vendors:" in argument]
    assert forwarded == [f"{port}=vendors:{port}" for port in fakes.values()]


def test_kafka_and_the_registry_behave_as_in_the_local_stack() -> None:
    local = dict(line.split("=", 1) for line in PROPERTIES.splitlines())
    compose = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): value
        for key, value in SERVICES["kafka"]["environment"].items()
    }
    differing = {key for key, value in local.items() if compose.get(key) != value}
    # two listeners instead of one
    assert differing == {"listener.security.protocol.map", "inter.broker.listener.name"}
    assert SERVICES["registry"]["environment"]["APICURIO_RULES_GLOBAL_COMPATIBILITY"] == COMPATIBILITY
    pom = (ROOT / "ops/local/pom.xml").read_text()
    for image, key in (("kafka", "kafka.version"), ("registry", "apicurio.version")):
        version = SERVICES[image]["image"].rpartition(":")[2]
        assert f"<{key}>{version}</{key}>" in pom


def test_prometheus_finds_every_worker_where_it_serves_its_metrics() -> None:
    (job,) = yaml.safe_load((ROOT / "ops/watch/prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["worker"]
    assert f"--health=0.0.0.0:{found['port']}" in SERVICES["worker"]["command"]
    (source,) = yaml.safe_load((ROOT / "ops/watch/grafana.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def mounted(name: str) -> dict[str, str]:
    """Path in the container by the file of this project that is there."""
    pairs = (volume.split(":")[:2] for volume in SERVICES[name]["volumes"])
    return {source.removeprefix("./"): target for source, target in pairs if source.startswith("./")}


def test_prometheus_reads_the_alert_rules() -> None:
    rules = yaml.safe_load((ROOT / "ops/watch/prometheus.yml").read_text())["rule_files"]
    assert rules == ["alerts.yml"]
    there = mounted("prometheus")
    assert there["ops/watch/alerts.yml"] == "/etc/prometheus/alerts.yml"
    assert there["ops/watch/prometheus.yml"] == "/etc/prometheus/prometheus.yml"  # where "alerts.yml" is looked for


def test_grafana_shows_every_board() -> None:
    (provider,) = yaml.safe_load((ROOT / "ops/watch/boards.yml").read_text())["providers"]
    there = mounted("grafana")
    assert there["ops/watch/boards.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    boards = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ops/watch/boards").iterdir())
    assert boards == sorted(source for source in there if source.startswith("ops/watch/boards/"))
    for board in boards:
        assert there[board].rpartition("/")[0] == provider["options"]["path"]


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    ignore = (ROOT / "ops/local/Dockerfile.dockerignore").read_text().splitlines()
    for line in (ROOT / "ops/local/Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (
                    f"!{source}" in ignore
                    or f"!{source.replace('-dev', '*')}" in ignore
                    or source in ("requirements.lock",)
                )


def test_dockers_own_check_agrees() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker client here")
    version = subprocess.run([docker, "compose", "version"], capture_output=True, text=True, check=False, timeout=60)
    if version.returncode != 0:
        pytest.skip("the docker client has no compose")
    check = [docker, "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
