"""A wheel (Python packaging specifications, "Binary distribution format" 1.0), written by itself: a pure Python
package needs no build tool, and so no network. The same content is the same file, byte for byte, on every machine."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a wheel says of itself. ``name`` and ``version`` are in their normal form; ``licenses`` are texts by file
    name; ``description`` is Markdown."""

    name: str
    version: str
    summary: str
    requires_python: str
    requires: Sequence[str]
    description: str
    generator: str
    licenses: Mapping[str, str]

    @property
    def file_name(self) -> str:
        return f"{self._stem}-py3-none-any.whl"

    @property
    def dist_info(self) -> str:
        return f"{self._stem}.dist-info"

    @property
    def _stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    def text(self) -> str:
        """The file METADATA (core metadata 2.4)."""
        lines = [
            "Metadata-Version: 2.4",
            f"Name: {self.name}",
            f"Version: {self.version}",
            f"Summary: {self.summary}",
            f"Requires-Python: {self.requires_python}",
            *(f"Requires-Dist: {one}" for one in self.requires),
            *(f"License-File: {one}" for one in self.licenses),
            "Description-Content-Type: text/markdown",
        ]
        return "\n".join(lines) + f"\n\n{self.description}"


def wheel(metadata: Metadata, files: Mapping[str, str]) -> bytes:
    """The wheel's bytes. ``files`` are texts by their path from where packages are installed."""
    info = metadata.dist_info
    content = dict(sorted(files.items()))
    content |= {f"{info}/licenses/{name}": text for name, text in metadata.licenses.items()}
    content[f"{info}/METADATA"] = metadata.text()
    content[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {metadata.generator}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{info}/RECORD"
    content[record] = "".join(_recorded(name, text) for name, text in content.items()) + f"{record},,\n"
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w") as archive:
        for name, text in content.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            # stored, not deflated: versions of zlib differ in what they write
            archive.writestr(entry, text.encode(), zipfile.ZIP_STORED)
    return opened.getvalue()


def _recorded(name: str, text: str) -> str:
    """A line of RECORD. Our names hold neither commas nor quotes."""
    data = text.encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
