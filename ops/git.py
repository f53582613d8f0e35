"""Files as they are at a revision of git: three calls of git, however many files there are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from schemas.contract import FILE_MAX
from schemas.errors import InputError

GIT_S = 30.0


def files_at(root: Path, revision: str, paths: Iterable[Path], *, suffix: str = ".avsc") -> dict[PurePosixPath, bytes]:
    """The content of every file of that suffix at or below ``paths`` as the revision has it, by its path from ``root``.

    Paths that the revision does not have are left out, and so are files of more than ``FILE_MAX`` bytes. Blocks for
    git. Raises InputError for an unknown revision, for a path outside of ``root``, and where there is no git.
    """
    commit = _commit(root, revision)
    below = [relative(root, path).as_posix() for path in paths]
    listed = git(root, "ls-tree", "-r", "-l", "-z", commit, "--", *below)
    if listed is None:
        raise InputError(f"git cannot list the files of '{revision}' in {root}.")
    blobs: dict[PurePosixPath, bytes] = {}
    for line in listed.split(b"\0"):
        head, _, written = line.partition(b"\t")
        parts = head.split()  # mode, kind, id, size
        is_file = len(parts) == 4 and parts[0].startswith(b"100") and written.endswith(suffix.encode())
        if is_file and int(parts[3]) <= FILE_MAX:
            blobs[PurePosixPath(os.fsdecode(written))] = parts[2]
    if not blobs:
        return {}
    contents = git(root, "cat-file", "--batch", given=b"\n".join(blobs.values()) + b"\n")
    if contents is None:
        raise InputError(f"git cannot read the files of '{revision}' in {root}.")
    found, place = {}, 0
    for name in blobs:
        head_end = contents.index(b"\n", place)
        size = int(contents[place:head_end].rpartition(b" ")[2])
        found[name] = contents[head_end + 1 : head_end + 1 + size]
        place = head_end + size + 2
    return found


def relative(root: Path, path: Path) -> PurePosixPath:
    """The path from ``root``, as git names it. Raises InputError for one outside."""
    try:
        return PurePosixPath(path.resolve().relative_to(root.resolve()).as_posix())
    except ValueError:
        raise InputError(f"{path} is not in the project {root}, so git does not know it.") from None


def from_top(file: str) -> str:
    """The path of a file, given from here or whole, from the top folder of its repository: what GitHub knows it by.
    As it was given where no repository is around it. Neither file needs to be there; git is not asked."""
    path = Path(os.path.abspath(file))
    # a folder, or in a worktree or submodule a file
    top = next((folder for folder in path.parents if (folder / ".git").exists()), None) if file else None
    return file if top is None else path.relative_to(top).as_posix()


def _commit(root: Path, revision: str) -> str:
    # a revision never begins with a dash: git would take it for an option
    found = (
        None if revision.startswith("-") else git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    )
    if found is None:
        raise InputError(f"git knows no revision '{revision}' in {root}.")
    return found.decode("ascii").strip()


def git(root: Path, *arguments: str, given: bytes = b"") -> bytes | None:
    """What git says in that folder, or None where it refuses. Blocks; raises InputError where there is no git, or it
    does not answer."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, input=given, timeout=GIT_S)
    except FileNotFoundError:
        raise InputError("This needs git, which is not installed.") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"git did not answer within {GIT_S:.0f} s.") from None
    except ValueError:  # a NUL in what was typed
        return None
    return done.stdout if done.returncode == 0 else None
