"""Schemas on disk, when the disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITER = """
import logging, resource, sys
from pathlib import Path
from schemas.schema_cache import SchemaCache

logging.basicConfig(format="%(levelname)s %(message)s")
cache = SchemaCache(Path(sys.argv[1]), "http://registry")
cache.write(1, '"string"')
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))  # no file may become larger: the kernel refuses the write itself
cache.write(2, '{"type": "string", "doc": "too long for the disk"}')
cache.write(3, '{"type": "string", "doc": "too long for the disk"}')
print(cache.read(1), cache.read(2), cache.read(3))
"""


def test_a_full_disk_keeps_no_half_of_a_schema_is_said_once_and_nothing_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == '"string" None None\n'
    assert done.stderr == "WARNING schemas are not kept on disk: File too large\n"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["1.avsc"]
