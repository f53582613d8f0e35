"""A file that somebody named: what it is, or the sentence for what it is not. And one that is written as a whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from schemas.errors import BackboneError, InputError, NotAllowedError, NotFoundError


def named_file(path: Path) -> Path:
    """The path, if something that can be opened is there. Raises NotFoundError, InputError for a folder or for what
    can be no path, NotAllowedError."""
    try:
        if not path.is_dir():
            path.stat()
            return path
    except OSError as error:
        raise file_error(error, path) from None
    raise InputError(f"{path} is a folder: name a file in it.")


def file_error(error: OSError, path: Path | str | None = None) -> BackboneError:
    """One of ours for what the system says of a file; ``path`` None: the one it names itself."""
    name = str(error.filename if path is None else path)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFoundError(f"There is no file {name}.")
        case errno.EISDIR:
            return InputError(f"{name} is a folder, not a file.")
        case errno.ENAMETOOLONG | errno.ELOOP | errno.EINVAL:
            return InputError(f"{name} can be no file ({error.strerror}).")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return NotAllowedError(f"The file {name} cannot be used: {error.strerror}.")
        case _:
            return InputError(f"The file {name} cannot be used: {error.strerror or 'input/output error'}.")


def folder_error(error: OSError, folder: Path) -> BackboneError:
    """One of ours for a folder that cannot be made, or written into."""
    kind = NotAllowedError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else InputError
    return kind(f"The folder {folder} cannot be written: {error.strerror or 'input/output error'}.")


def write_whole(file: Path, text: str) -> None:
    """Write a file that only this user may read; on the disk when this returns. Raises OSError."""
    # the new file is complete on the disk before it takes the old one's place: a cut leaves the old or the new
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
