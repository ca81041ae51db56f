"""The agent's file as tests run it: it keeps its compiled code in a folder of the test."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from moorline.agent_file import agent_bytes
from moorline.compiled import PLACE


def private_agent(place: Path, *, edit: tuple[bytes, bytes] = (b"", b"")) -> bytes:
    """The real one, but for the place of its code. With `edit` another one: each first text that
    stands in a module becomes the second."""
    out = io.BytesIO(b"#!/usr/bin/env python3\n")
    out.seek(0, io.SEEK_END)
    with (
        zipfile.ZipFile(io.BytesIO(agent_bytes())) as real,
        zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive,
    ):
        for name in real.namelist():
            text = real.read(name)
            if name == "moorline/compiled.py":
                old = f'PLACE = "{PLACE}"'.encode()
                assert old in text
                text = text.replace(old, b'PLACE = "%s"' % bytes(place))
            archive.writestr(zipfile.ZipInfo(name), text.replace(*edit) if edit[0] else text)
    return out.getvalue()
