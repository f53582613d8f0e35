"""Finding Java, fetching the programs, Kafka's data folder: what can be missing, old or half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.artifacts import artifacts
from ops.local.java import Java, find_java, version_of
from ops.local.kafka import Kafka
from ops.local.log import follow, tail
from schemas.errors import UnreachableError
from tests.conftest import ROOT


def silent(_words: str) -> None:
    pass


def a_program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def a_project(folder: Path) -> Path:
    (folder / "backbone.toml").write_text('[project]\nname = "acme"\nschemas = "schemas"\nsubscriptions = "subs"\n')
    return folder


def backbone(project: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", *arguments],
        env={"PATH": path, "BACKBONE_PROJECT": str(project), "HOME": str(project), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_maven_one_sentence_says_what_to_do_and_the_exit_code_is_8(tmp_path: Path) -> None:
    done = backbone(a_project(tmp_path), "local", "up", path=str(tmp_path / "nothing"))
    assert done.returncode == 8
    assert "Traceback" not in done.stderr
    assert "Install Maven" in done.stderr
    assert "docker compose up -d" in done.stderr
    assert "backbone -c compose" in done.stderr
    assert not (tmp_path / ".backbone" / "local.json").exists()


def test_without_a_repository_in_reach_mavens_reason_is_given_and_nothing_half_fetched_stays(tmp_path: Path) -> None:
    a_program(tmp_path / "bin", "mvn", "echo '[ERROR] Could not resolve artifact: no route to host'; exit 1")
    done = backbone(a_project(tmp_path), "local", "up", path=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 8
    assert "Could not resolve artifact: no route to host" in done.stderr
    assert "docker compose up -d" in done.stderr
    assert [left.name for left in (tmp_path / ".backbone" / "artifacts").iterdir()] == ["lock"]


def test_a_maven_that_reports_success_but_fetched_nothing_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{a_program(tmp_path / 'bin', 'mvn', 'exit 0').parent}:/usr/bin:/bin")
    with pytest.raises(UnreachableError, match="no reason given"):
        artifacts(tmp_path / "artifacts", find_java(), silent)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_maven_runs_on_the_java_that_was_found_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    a_program(tmp_path / "bin", "mvn", f'echo "$JAVA_HOME" > {said}; exit 1')
    java = find_java()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UnreachableError):
        artifacts(tmp_path / "artifacts", java, silent)
    assert said.read_text().strip() == str(java.home)


def test_maven_keeps_the_machines_own_java_and_its_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a company's proxy the packaged Java trusted nobody: nothing could be fetched, and no reason was given
    (Maven had coloured it)."""
    said = tmp_path / "said"
    a_program(tmp_path / "bin", "mvn", f'echo "home=$JAVA_HOME $*" > {said}; exit 1')
    a_program(tmp_path / "bin", "java", "exit 0")
    java = find_java()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UnreachableError):
        artifacts(tmp_path / "artifacts", java, silent)
    assert said.read_text().startswith("home= ")
    assert "-Dstyle.color=never" in said.read_text()


def test_the_version_of_a_java_is_read_from_its_release_file_or_asked(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="25.0.2"\n')
    assert version_of(tmp_path / "new") == "25.0.2"
    a_program(tmp_path / "asked" / "bin", "java", """echo 'openjdk version "17.0.15" 2025' >&2""")
    assert version_of(tmp_path / "asked") == "17.0.15"
    a_program(tmp_path / "odd" / "bin", "java", "echo 'no idea' >&2")
    assert version_of(tmp_path / "odd") is None
    assert version_of(tmp_path / "missing") is None


def test_a_system_java_is_used_when_the_package_has_none_and_an_old_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    home = a_program(tmp_path / "jdk" / "bin", "java", """echo 'openjdk version "17.0.15" 2025' >&2""").parent.parent
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(home))
    with pytest.raises(UnreachableError, match="needs Java 21 or newer"):
        find_java()
    (home / "release").write_text('JAVA_VERSION="21.0.1"\n')
    assert find_java() == Java(home, "21.0.1")
    assert not find_java().makes_aot_cache


@pytest.fixture
def kafka(tmp_path: Path) -> Kafka:
    """A node whose Java formats nothing but what a format leaves: the real format is in the integration tests."""
    script = """for settings; do :; done
folder=$(sed -n 's/^log.dirs=//p' "$settings")
mkdir -p "$folder" && echo formatted > "$folder/meta.properties\""""
    a_program(tmp_path / "jdk" / "bin", "java", script)
    from ops.local.artifacts import Artifacts

    return Kafka(Java(tmp_path / "jdk", "25"), Artifacts(tmp_path), tmp_path / "kafka", 1, 2)


def test_a_data_folder_is_formatted_once(kafka: Kafka) -> None:
    kafka.prepare(silent)
    (kafka.data / "meta.properties").write_text("kept")
    kafka.prepare(silent)
    assert (kafka.data / "meta.properties").read_text() == "kept"
    assert sorted(file.name for file in kafka.folder.iterdir()) == ["data", "server.properties"]


def test_a_format_that_was_killed_in_the_middle_is_begun_again(kafka: Kafka) -> None:
    """Its formatter may live on and write into its folder: it used to be the same one that the next start formats."""
    (kafka.folder / "data.new-17" / "half").mkdir(parents=True)
    (kafka.folder / "format-17.properties").touch()
    kafka.prepare(silent)
    assert sorted(file.name for file in kafka.folder.iterdir()) == ["data", "server.properties"]
    assert (kafka.data / "meta.properties").exists()
    assert not (kafka.data / "half").exists()


def test_a_half_written_data_folder_without_records_is_made_anew_and_said(kafka: Kafka) -> None:
    (kafka.data / "orders-0").mkdir(parents=True)
    (kafka.data / "orders-0" / "00000000000000000000.log").touch()
    heard: list[str] = []
    kafka.prepare(heard.append)
    assert "half-written" in heard[0]
    assert (kafka.data / "meta.properties").exists()


def test_records_without_the_folders_identity_are_set_aside_and_never_deleted(kafka: Kafka) -> None:
    for number in (1, 2):
        (kafka.data / "orders-0").mkdir(parents=True, exist_ok=True)
        (kafka.data / "meta.properties").unlink(missing_ok=True)
        (kafka.data / "orders-0" / "00000000000000000000.log").write_bytes(b"records")
        heard: list[str] = []
        kafka.prepare(heard.append)
        aside = kafka.folder / f"data.damaged-{number}"
        assert str(aside) in heard[0]
        assert (aside / "orders-0" / "00000000000000000000.log").read_bytes() == b"records"
        assert [file.name for file in kafka.data.iterdir()] == ["meta.properties"]


def test_a_format_that_fails_says_why(kafka: Kafka) -> None:
    a_program(kafka.java.home / "bin", "java", "echo 'No space left on device' >&2; exit 1")
    with pytest.raises(UnreachableError, match="No space left on device"):
        kafka.prepare(silent)
    assert not kafka.data.exists()


def test_paths_with_odd_letters_stand_in_no_file_that_java_reads(tmp_path: Path, kafka: Kafka) -> None:
    odd = Kafka(kafka.java, kafka.artifacts, tmp_path / "Jörg, his files", 1, 2)
    odd.prepare(silent)
    assert "log.dirs=data\n" in (odd.folder / "server.properties").read_text()


def test_the_end_of_a_log_is_shown_and_every_new_line_follows(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert tail(path, 5) == []
    path.write_bytes(b"one\ntwo\nthr\xffee\n")
    assert tail(path, 2) == ["two", "thr�ee"]
    assert tail(path, 0) == []
    lines = follow({"a": path}, 1)
    assert next(lines) == ("a", "thr�ee")
    with path.open("ab") as file:
        file.write(b"four\nhal")
    assert next(lines) == ("a", "four")
    with path.open("ab") as file:
        file.write(b"f\n")
    assert next(lines) == ("a", "half")
    path.write_bytes(b"new\n")  # turned over
    assert next(lines) == ("a", "new")


def test_asking_after_a_stack_that_never_was_is_no_error(tmp_path: Path) -> None:
    path = os.environ["PATH"]
    project = a_project(tmp_path)
    for arguments in (["status"], ["down"], ["logs"], ["logs", "kafka"], ["reset", "--yes"]):
        done = backbone(project, "local", *arguments, path=path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert backbone(project, "local", "logs", "postgres", path=path).returncode == 2
    refused = backbone(project, "local", "reset", path=path)
    assert refused.returncode == 6
    assert "--yes" in refused.stderr
