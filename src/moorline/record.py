"""One JSON object from outside: bounded, strict, with errors that name the field.

Every small file of Moorline (build.json, settings, history rows, ledger records) is read through
this module, because each of them may have been written by somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

from moorline.errors import ConfigError

MAX_RECORD_BYTES = 1 << 20


class Record:
    """The fields of one JSON object; every `get` checks the type and says which file is wrong.

    `where` names the file in errors. Unknown fields are ignored by `Record` itself, so that a
    newer writer may add some: whoever needs a closed set of names calls `only`.
    """

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.fields = fields
        self.where = where

    @classmethod
    def parse(cls, text: Union[bytes, str], where: str) -> Record:
        """Raises ConfigError when `text` is not one JSON object of at most 1 MiB."""
        if len(text) > MAX_RECORD_BYTES:
            raise ConfigError(f"{where} is too large to be a record of Moorline.")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where} is not valid JSON: {error}.") from None
        if not isinstance(fields, dict):
            raise ConfigError(f"{where} is not a JSON object.")
        return cls(fields, where)

    def text(self, name: str, default: Optional[str] = None, *, most: int = 4096) -> str:
        value = self._get(name, default)
        if not isinstance(value, str) or len(value) > most or not _usable(value):
            raise self.wrong(name, f"a text of at most {most} characters")
        return value

    def optional_text(self, name: str) -> Optional[str]:
        return None if self.fields.get(name) is None else self.text(name)

    def number(
        self, name: str, default: Optional[int] = None, *, least: int = 0, most: int = 1 << 62
    ) -> int:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def flag(self, name: str, default: Optional[bool] = None) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; an absent field is an empty list."""
        value = self.fields.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and _usable(v) for v in value):
            raise self.wrong(name, "a list of texts")
        return value

    def records(self, name: str) -> list[Record]:
        """A list of objects; an absent field is an empty list."""
        value = self.fields.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.wrong(name, "a list of objects")
        return [Record(v, f"{self.where}: {name}") for v in value]

    def record(self, name: str) -> Record:
        """One nested object; an absent field is an empty one."""
        value = self.fields.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Record(value, f"{self.where}: {name}")

    def only(self, names: Iterable[str]) -> None:
        """Raises ConfigError for the first field that is not among `names`: "did you mean"."""
        known = list(names)
        for name in self.fields:
            if name not in known:
                import difflib  # dear, and most records know all their names

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
                raise ConfigError(f"{self.where}: unknown key {name!r}. {hint}")

    def wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"{self.where}: {name!r} must be {wanted}.")

    def _get(self, name: str, default: Any) -> Any:
        value = self.fields.get(name, default)
        if value is None:
            raise ConfigError(f"{self.where}: {name!r} is missing.")
        return value


def _usable(text: str) -> bool:
    """Whether the system can take it as a name or an argument. JSON may hold half a character; the
    halves that stand for single bytes are names that Python itself reads so."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def record_text(fields: Mapping[str, Any]) -> bytes:
    """The one way in which Moorline writes a record: sorted, compact, ASCII, one final newline."""
    kept: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"
