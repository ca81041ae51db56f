"""One TOML text, the environment and the flags -> one frozen Config.

Precedence: flag > environment (MOORLINE_STORE, MOORLINE_TARGET, MOORLINE_APP, MOORLINE_CONFIG) >
`moorline.toml` in the current folder, or the file that --config names > default.

How targets run the application ([target], [hooks], [groups]) is `settings`' business: the tables
are handed on unchanged. Nothing here touches a disk but `read_config` and the template's text.
"""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pkgutil import get_data
from typing import TYPE_CHECKING, Any

from moorline.errors import ConfigError
from moorline.manifest import SECRETS
from moorline.record import MAX_RECORD_BYTES, Record
from moorline.settings import Settings, checked_app, settings_of

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

CONFIG_NAME = "moorline.toml"
STORE_VARIABLE, TARGET_VARIABLE = "MOORLINE_STORE", "MOORLINE_TARGET"
APP_VARIABLE, CONFIG_VARIABLE = "MOORLINE_APP", "MOORLINE_CONFIG"

_SETTINGS_TABLES = ("target", "hooks", "groups")
_KEYS = ("app", "store", "publish", *_SETTINGS_TABLES)
_STORE_KEYS = ("path",)
_PUBLISH_KEYS = ("exclude", "allow", "allow_external_links")
_NO_APP = "unnamed"  # settings_of wants a name; the store's own replaces it
_ALLOWABLE = tuple(os.fsdecode(name) for name in SECRETS)


@dataclass(frozen=True)
class Config:
    """What a verb needs to know. An empty text means that nobody named it.

    `app` "" stands for whatever the store says; `store` is the builder's path of the store;
    `target` the root that a flag or the environment names; `path` the file that was read.
    """

    app: str = ""
    store: str = ""
    target: str = ""
    exclude: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    allow_external_links: bool = False
    settings: Settings = field(default_factory=Settings)
    path: str | None = None

    def excluded(self) -> Callable[[str, bool], bool] | None:
        """The test (path, is_directory) of the patterns in `exclude`, as in .gitignore; None when
        there are none."""
        if not self.exclude:
            return None
        spec = _spec(self.exclude, self.path or CONFIG_NAME)

        def matches(path: str, is_directory: bool) -> bool:
            # The patterns' regular expressions treat a newline in a name as the end of it.
            plain = path.replace("\n", "\ufffd")
            return spec.match_file(plain + "/" if is_directory else plain)

        return matches

    def store_path(self) -> str:
        """The store. Raises ConfigError when none is named."""
        if not self.store:
            raise ConfigError(
                f"no store is named. Give --store, set {STORE_VARIABLE}, or set 'path' in the "
                f"table [store] of {self._file}. A new store is made with 'moorline init'."
            )
        return self.store

    def target_root(self, stage: str = "") -> str:
        """The target's root for `stage`. Raises ConfigError when none is named."""
        root = self.target or self.settings.for_group(stage).root
        if not root:
            raise ConfigError(
                f"no target is named. Give --target, set {TARGET_VARIABLE}, or set 'root' in the "
                f"table [target] of {self._file}."
            )
        return root

    @property
    def _file(self) -> str:
        return self.path or f"{CONFIG_NAME} (there is none in this folder)"


def read_config(path: str) -> bytes:
    """The bytes of the file at `path`, or of a pipe as `--config <(...)` makes one. A FIFO that
    nobody writes ends at once, and a device that never ends is not read for ever."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            os.set_blocking(fd, True)
            with open(fd, "rb", closefd=False) as file:
                text = file.read(MAX_RECORD_BYTES + 1)
        finally:
            os.close(fd)
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder. Name the file: {path}/{CONFIG_NAME}.") from None
    if len(text) > MAX_RECORD_BYTES:
        raise ConfigError(f"{path} is larger than 1 MiB: that is no configuration.")
    return text


def load_config(
    path: str | None = None,
    env: Mapping[str, str] = os.environ,
    flags: Mapping[str, str | None] | None = None,
    *,
    read: Callable[[str], bytes] = read_config,
) -> Config:
    """The configuration of one run. Raises ConfigError.

    `path` is --config; `flags` may hold `app`, `store` and `target`. A file that is named must be
    there; `moorline.toml` in the current folder need not. An empty variable counts as not set.
    """
    named = path or env.get(CONFIG_VARIABLE, "")
    name = named or CONFIG_NAME
    try:
        config = parse_config(read(name), name)
    except (FileNotFoundError, NotADirectoryError):
        if named:
            origin = "--config" if path else CONFIG_VARIABLE
            raise ConfigError(
                f"no configuration at {named}: {origin} names a file that does not exist. "
                "Correct the name, or make the file with 'moorline init'."
            ) from None
        config = Config()
    given = flags or {}
    for flag, value in given.items():
        if value == "":  # --target "$UNSET" must not become another target
            raise ConfigError(f"--{flag} is empty. Give it a value, or leave it out.")
    app = _app(given.get("app"), "--app") or _app(env.get(APP_VARIABLE), APP_VARIABLE)
    return replace(
        config,
        app=app or config.app,
        store=given.get("store") or env.get(STORE_VARIABLE) or config.store,
        target=given.get("target") or env.get(TARGET_VARIABLE) or config.target,
    )


def parse_config(text: bytes, where: str = CONFIG_NAME) -> Config:
    """The configuration in one TOML text. Raises ConfigError, naming file, table and key.

    A relative path of the store is relative to the file's folder.
    """
    record = Record(_parsed(text, where), where)
    record.only(_KEYS)
    store, publish = _table(record, "store"), _table(record, "publish")
    store.only(_STORE_KEYS)
    publish.only(_PUBLISH_KEYS)
    path = store.text("path", "")
    exclude = tuple(publish.texts("exclude"))
    if exclude:
        _spec(exclude, where)
    return Config(
        app=_app(record.text("app", ""), f"{where}: app"),
        store=os.path.join(os.path.dirname(where), path) if path else "",
        exclude=exclude,
        allow=_allowed(publish),
        allow_external_links=publish.flag("allow_external_links", False),
        settings=_settings(record, where),
        path=where,
    )


def new_config_text(app: str, store: str, layout: str) -> str:
    """The commented moorline.toml that `init` writes."""
    template = (get_data("moorline", "moorline.toml.in") or b"").decode("utf-8")
    values = {"@APP@": app, "@STORE@": store, "@LAYOUT@": layout}
    for name, value in values.items():
        template = template.replace(name, _quoted(value))
    return template


# -- the parts ------------------------------------------------------------------------------------


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}, line {line}: not UTF-8. Save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), text, where) from None
    except (RecursionError, ValueError) as error:  # a number of more digits than Python reads
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{where} is not valid TOML: {reason}.") from None


def _not_toml(message: str, text: bytes, where: str) -> ConfigError:
    """tomllib's "Invalid value (at line 3, column 5)", with the place first."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    what, line, column = match.groups() if match else (message, None, None)
    line = line or str(text.rstrip().count(b"\n") + 1)
    place = f"line {line}, column {column}" if column else f"line {line}"
    return ConfigError(
        f"{where}, {place}: {what}. The file is not valid TOML: texts stand in quotes, lists in []."
    )


def _table(record: Record, name: str) -> Record:
    table = record.fields.get(name, {})
    if not isinstance(table, dict):
        raise record.wrong(name, f"a table: write [{name}]")
    return Record(table, f"{record.where}: [{name}]")


def _settings(record: Record, where: str) -> Settings:
    tables = {name: _table(record, name).fields for name in _SETTINGS_TABLES}
    try:
        settings = settings_of(tables, app=_NO_APP, where=where)
    except ConfigError as error:
        if error.message.startswith(where):
            raise
        raise ConfigError(f"{where}: {error.message}") from None
    return replace(settings, app="")


def _app(name: str | None, where: str) -> str:
    if not name:
        return ""
    try:
        return checked_app(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}") from None


def _allowed(publish: Record) -> frozenset[str]:
    allow = frozenset(publish.texts("allow"))
    if not allow <= frozenset(_ALLOWABLE):
        names = " and ".join(_ALLOWABLE)
        raise ConfigError(
            f"{publish.where}: 'allow' may hold {names}, the names that are refused otherwise. "
            f"It holds {', '.join(sorted(allow - frozenset(_ALLOWABLE)))}."
        )
    return allow


def _spec(patterns: tuple[str, ...], where: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # dear, and most builds leave nothing out

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except Exception as error:  # pathspec lets re.error and its own errors out
            raise ConfigError(
                f"{where}: [publish]: 'exclude' has the pattern {pattern[:80]!r}, which is none: "
                f"{error}. Write it as in a .gitignore file."
            ) from None
    return GitIgnoreSpec.from_lines(patterns)


def _quoted(text: str) -> str:
    """`text` as a TOML string: JSON's escapes, and DEL."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"{os.fsencode(text)!r} cannot stand in a TOML file: it is not UTF-8. Use another path."
        ) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def default_id(environment: Mapping[str, str], digest: str, now: float) -> str:
    """A build id that sorts by time and names its origin, from CodeBuild's variables.

    CODEBUILD_BUILD_NUMBER counts the builds of a project; CODEBUILD_BUILD_ID has a colon, which no
    id may have (AWS CodeBuild user guide, environment variables).
    """
    number = environment.get("CODEBUILD_BUILD_NUMBER", "")
    commit = environment.get("CODEBUILD_RESOLVED_SOURCE_VERSION", "")[:8]
    if number:
        return f"{number}-{commit or digest[:8]}"
    build = environment.get("CODEBUILD_BUILD_ID", "").replace(":", "-")
    if build:
        return build
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{digest[:8]}"
