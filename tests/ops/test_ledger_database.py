"""The ledger's database: made, migrated by whoever comes first, refused where it is not ours to understand."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ops.ledger import database, tables
from ops.ledger.database import Address, open_engine, prepare
from ops.ledger.query import Ledger, Wanted
from schemas.errors import BackboneError, InputError, NotAllowedError, RefusedError, UnreachableError
from tests.connectors.postgresql import PostgreSql, postgresql, programs
from tests.ops.ledgers import KEY, address_of, open_store, row


def migrate_to(address: Address, revision: str) -> None:
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def differences(address: Address) -> list[str]:
    engine = open_engine(address, writes=False)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return sorted(repr(one) for one in compare_metadata(context, tables.metadata))
    finally:
        engine.dispose()


def test_the_migrations_come_to_what_the_tables_say(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    open_store(address).close()
    assert differences(address) == []
    assert ScriptDirectory.from_config(database._config()).get_current_head() == database.HEAD


def test_asking_a_current_ledger_imports_no_alembic(tmp_path: Path) -> None:
    """It took as long as the rest of ``backbone trace``."""
    open_store(address_of(tmp_path)).close()
    program = (
        "import sys; from pathlib import Path; from ops.ledger.query import Ledger, Wanted\n"
        "from ops.ledger.database import parse_address\n"
        f"address = parse_address('sqlite:///ledger.db', root=Path({str(tmp_path)!r}), place='here')\n"
        "assert Ledger(address, lambda: b'').find(Wanted(), limit=1) == []\n"
        "sys.exit(any(name.partition('.')[0] == 'alembic' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_ledger_of_the_version_before_is_brought_up_to_date_and_keeps_its_receipts(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    migrate_to(address, "0001")
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        connection.execute(tables.receipts.insert(), [row(1, 1)])
    engine.dispose()
    ledger = Ledger(address, lambda: KEY)
    with pytest.raises(RefusedError, match="brought up to date when a worker starts"):
        ledger.find(Wanted(), limit=1)
    open_store(address).close()
    assert differences(address) == []
    assert [one.event_id for one in ledger.find(Wanted(), limit=1)] == ["e-1"]
    ledger.close()


def test_an_older_program_refuses_a_newer_ledger(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    open_store(address).close()
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(RefusedError, match="newer version of the backbone"):
        open_store(address)
    ledger = Ledger(address, lambda: KEY)
    with pytest.raises(RefusedError, match="newer version of the backbone"):
        ledger.find(Wanted(), limit=1)
    ledger.close()


def test_what_breaks_in_a_migration_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """SQLite's DDL is outside of transactions as Python begins them: half a migration stayed."""
    address = address_of(tmp_path)
    migrate_to(address, "0001")
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX receipts_last_at ON ranges (at)")  # the last one that is to be made
    engine.dispose()
    before = differences(address)
    with pytest.raises(BackboneError):
        open_store(address)
    assert differences(address) == before


def test_of_processes_that_start_together_one_migrates(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    made: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(prepare, address, cluster="c", begin_anew=lambda n=n: made.append(n)) for n in range(4)
        ]:
            done.result(60)
    assert len(made) == 1
    assert differences(address) == []


def test_a_ledger_begins_anew_once_and_belongs_to_one_cluster(tmp_path: Path) -> None:
    address = address_of(tmp_path)

    def not_now() -> None:
        raise RefusedError("others are writing")

    with pytest.raises(RefusedError, match="others are writing"):
        prepare(address, cluster="c-1", begin_anew=not_now)
    ledger = Ledger(address, lambda: KEY)
    assert not ledger.exists, "a ledger that could not begin was left behind"
    prepare(address, cluster="c-1", begin_anew=lambda: None)
    assert ledger.exists
    prepare(address, cluster="c-1", begin_anew=not_now)
    with pytest.raises(RefusedError, match=r"another Kafka cluster \(c-1, this is c-2\)"):
        prepare(address, cluster="c-2", begin_anew=not_now)
    ledger.close()


def test_asking_makes_no_ledger(tmp_path: Path) -> None:
    ledger = Ledger(address_of(tmp_path), lambda: KEY)
    assert ledger.find(Wanted(value="u-1"), limit=5) == []
    assert ledger.of_events(["e-1"]) == []
    ledger.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is no database URL"),
        ("mysql://me:hunter2@db/x", "must begin with postgresql:// or sqlite:///"),
        ("sqlite://", "needs a file"),
    ],
)
def test_an_address_that_cannot_be_is_one_sentence_without_it(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        address_of(tmp_path, url)
    assert words in str(caught.value)
    assert "contexts.test.ledger" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_and_a_folder_that_cannot_be_made_are_said(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(NotAllowedError, match=r"ledger\.db"):
        open_store(address_of(tmp_path))
    with pytest.raises(NotAllowedError, match="cannot be made"):
        open_store(address_of(tmp_path, "sqlite:///ledger.db/inside/ledger.db"))


def test_a_database_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    address = address_of(tmp_path, "postgresql://me:hunter2@127.0.0.1:1/ledger")
    with pytest.raises(UnreachableError) as caught:
        open_store(address)
    assert "hunter2" not in str(caught.value)
    ledger = Ledger(address, lambda: KEY)
    with pytest.raises(UnreachableError, match="does not answer"):
        ledger.find(Wanted(), limit=1)
    ledger.close()


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL server here")
def test_processes_that_start_together_migrate_postgresql_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Real processes: the lock is the database's own."""
    import tempfile

    program = (
        "import sys; from pathlib import Path; from tests.ops.ledgers import address_of, open_store\n"
        "open_store(address_of(Path('/'), sys.stdin.read())).close()"
    )
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as server:
        processes = [_started(program, server) for _ in range(3)]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        address = address_of(Path("/"), server.url)
        assert "canary-password" not in str(address)
        assert differences(address) == []
        assert _count(address) == 1


def _started(program: str, server: PostgreSql) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(server.url.encode())
    process.stdin.close()
    return process


def _count(address: Address) -> int:
    engine = open_engine(address, writes=False)
    with engine.connect() as connection:
        found = connection.scalar(sa.select(sa.func.count()).select_from(tables.about_ledger))
    engine.dispose()
    return int(found or 0)
