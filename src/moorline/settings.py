"""Settings: how targets run an application. One JSON text in the store, pinned by the bundle.

The same tables stand in `moorline.toml` as [target], [hooks] and [groups.NAME]; `config` hands them
in unchanged, so there is one validation for the person's file and for the file from the store.
Pure: no disk, no clock, no environment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from moorline.errors import ConfigError
from moorline.record import Record, record_text

SETTINGS_FORMAT = 1
MODES = ("copy", "link")

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PATH = re.compile(r"/[A-Za-z0-9._/-]{1,199}")
# Of TOML's basic strings those that JSON reads in the same way.
_STRING = r'"(?:[^"\\\x00-\x1f\x7f]|\\["\\bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*"'
# For a line without the blanks around it: two that could share them would try all ways to do so.
_POLICY_LINE = re.compile(
    r"(?:#[^\x00-\x08\x0a-\x1f\x7f]*|(?P<name>[a-z]+)[ \t]*=[ \t]*(?P<value>"
    rf"{_STRING}|\[[ \t]*(?:{_STRING}[ \t]*(?:,[ \t]*{_STRING}[ \t]*)*)?\]))?"
)
_MOST_POLICY_LINE = 4096
_HOOK_KEYS = ("run", "url", "contains", "timeout_s", "user", "retries", "retry_wait_s")
_TARGET_KEYS = ("root", "store", "mode", "owner", "keep_releases", "linked", "store_wait_s",
                "store_timeout_s", "deploy_timeout_s")  # fmt: skip
_MOMENTS = ("before_switch", "after_switch", "check")


@dataclass(frozen=True)
class Hook:
    """A program that a target runs, or a URL that the agent asks (checks only).

    `run` is an argument list, never a shell string; a first word that starts with ./ is a file of
    the build. Times are in seconds. A check is tried 1 + `retries` times.
    """

    run: tuple[str, ...] = ()
    url: str = ""
    contains: str = ""
    timeout_s: int = 60
    user: str = ""
    retries: int = 0
    retry_wait_s: int = 1

    @property
    def shown(self) -> str:
        return self.url or " ".join(self.run)


@dataclass(frozen=True)
class Settings:
    """How targets run `app`. Times are in seconds; `linked` directories end in a slash."""

    app: str = ""
    store_id: str = ""
    root: str = ""
    store: str = ""
    mode: str = "copy"
    owner: str = ""
    keep_releases: int = 3
    linked: tuple[str, ...] = ()
    store_wait_s: int = 120
    store_timeout_s: int = 60
    deploy_timeout_s: int = 3600
    before_switch: tuple[Hook, ...] = ()
    after_switch: tuple[Hook, ...] = ()
    check: tuple[Hook, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def for_group(self, name: str) -> Settings:
        """With the overrides of the deployment group or stage `name`, when there are any."""
        group = self.groups.get(name)
        if not group:
            return self
        where = f"groups.{name}"
        if "linked" in group:
            raise ConfigError(f"{where}: linked paths belong to the build; set them in [target].")
        changed = _with_target(
            self, Record({k: v for k, v in group.items() if k != "hooks"}, where)
        )
        return _with_hooks(changed, Record(group, where).record("hooks"))

    @property
    def text(self) -> bytes:
        """The JSON text that a store keeps, and that a bundle pins by its digest."""
        return record_text(
            {"format": SETTINGS_FORMAT, "app": self.app, "store_id": self.store_id, **self.tables}
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text).hexdigest()


def parse_settings(text: bytes, where: str = "settings") -> Settings:
    """The settings in `text`. Raises ConfigError, naming the field."""
    record = Record.parse(text, where)
    if record.number("format") != SETTINGS_FORMAT:
        raise ConfigError(f"{where}: this format needs a newer moorline.")
    tables = {name: record.record(name).fields for name in ("target", "hooks", "groups")}
    return settings_of(
        tables, app=record.text("app"), store_id=record.text("store_id"), where=where
    )


def settings_of(
    tables: Mapping[str, Any], *, app: str, store_id: str = "", where: str = "moorline.toml"
) -> Settings:
    """Settings from the tables `target`, `hooks` and `groups`. Raises ConfigError."""
    record = Record(tables, where)
    record.only(("target", "hooks", "groups"))
    try:
        plain = json.loads(
            json.dumps({name: tables[name] for name in sorted(tables) if tables[name]})
        )
    except TypeError:  # TOML has dates and times, settings have none
        raise ConfigError(
            f"{where}: a date or time stands in [target], [hooks] or [groups]. Put it in quotes."
        ) from None
    groups = record.record("groups").fields
    settings = Settings(
        app=checked_app(app), store_id=store_id, groups=plain.get("groups", {}), tables=plain
    )
    settings = _with_target(settings, record.record("target"))
    settings = _with_hooks(settings, record.record("hooks"))
    for name in groups:
        if not isinstance(groups[name], dict):
            raise ConfigError(f"{where}: groups.{name} must be a table.")
        settings.for_group(name)
    return settings


def checked_app(name: str) -> str:
    """An application's name: 1 to 40 safe characters. Raises ConfigError."""
    if not _APP.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is not a name for an application. Use 1 to 40 of A-Z a-z 0-9 . _ -, "
            "starting with a letter or a digit."
        )
    return name


def checked_path(path: str, where: str) -> str:
    """A path that deploy.sh may hold as a literal: absolute, at most 200 safe characters. Up to 60
    of them always fit into a bundle of 1,000 bytes; more may not."""
    if not _PATH.fullmatch(path) or ".." in path.split("/") or not path.strip("/"):
        raise ConfigError(
            f"{where}: {path[:100]!r} must be an absolute path of at most 200 of the characters "
            "A-Z a-z 0-9 . _ / -, without '..'."
        )
    return path.rstrip("/")


def _with_target(settings: Settings, record: Record) -> Settings:
    record.only(_TARGET_KEYS)
    mode = record.text("mode", settings.mode)
    if mode not in MODES:
        raise record.wrong("mode", "'copy' or 'link'")
    owner = record.text("owner", settings.owner)
    if owner and not _USER.fullmatch(owner):
        raise record.wrong("owner", "the name of a user")
    root, store = record.text("root", settings.root), record.text("store", settings.store)
    linked = _checked_linked(record.texts("linked")) or settings.linked
    return replace(
        settings,
        root=checked_path(root, f"{record.where}: root") if root else "",
        store=checked_path(store, f"{record.where}: store") if store else "",
        mode=mode,
        owner=owner,
        linked=linked,
        keep_releases=record.number("keep_releases", settings.keep_releases, least=2, most=100),
        store_wait_s=record.number("store_wait_s", settings.store_wait_s, most=3600),
        store_timeout_s=record.number(
            "store_timeout_s", settings.store_timeout_s, least=1, most=3600
        ),
        deploy_timeout_s=record.number(
            "deploy_timeout_s", settings.deploy_timeout_s, least=10, most=86400
        ),
    )


def _checked_linked(paths: list[str]) -> tuple[str, ...]:
    before = ""
    for path in sorted(path.rstrip("/") + "/" for path in paths):
        if path.startswith("/") or "\0" in path or {"", ".", ".."} & set(path[:-1].split("/")):
            raise ConfigError(
                f"linked: {path[:100]!r} must be a path inside the build: 'public/uploads/'."
            )
        if before and path.startswith(before):
            raise ConfigError(
                f"linked: {path[:100]!r} is named twice, or lies in {before[:100]!r}."
            )
        before = path
    return tuple(paths)


def _with_hooks(settings: Settings, record: Record) -> Settings:
    record.only(_MOMENTS)
    changed: dict[str, tuple[Hook, ...]] = {}
    for moment in _MOMENTS:
        if moment in record.fields:
            hooks = record.records(moment)
            changed[moment] = tuple(_hook(hook, moment) for hook in hooks)
    return replace(settings, **changed)  # type: ignore[arg-type]


def _hook(record: Record, moment: str) -> Hook:
    record.only(_HOOK_KEYS)
    run, url = tuple(record.texts("run")), record.text("url", "")
    if bool(run) == bool(url) or (url and moment != "check"):
        wanted = "either 'run' or 'url'" if moment == "check" else "'run', a list of words"
        raise ConfigError(f"{record.where}: a {moment} hook needs {wanted}.")
    if url and not url.startswith(("http://", "https://")):
        raise record.wrong("url", "an address that starts with http:// or https://")
    if run and (not run[0] or any("\0" in word for word in run)):
        raise record.wrong("run", "a list of words, the first one the program")
    if run and run[0].startswith("./") and ".." in run[0].split("/"):
        raise record.wrong("run", "a program inside the build")
    user = record.text("user", "")
    if user and not _USER.fullmatch(user):
        raise record.wrong("user", "the name of a user")
    return Hook(
        run=run,
        url=url,
        contains=record.text("contains", ""),
        timeout_s=record.number("timeout_s", 60, least=1, most=3600),
        user=user,
        retries=record.number("retries", 0, most=1000),
        retry_wait_s=record.number("retry_wait_s", 1, most=600),
    )


# -- the host's own word --------------------------------------------------------------------------


@dataclass(frozen=True)
class HostPolicy:
    """What root on a host allows, in /etc/moorline.toml; it wins over settings from the share.

    `store` replaces the path of the store; the others, when not empty, restrict target roots (by
    prefix), the users of hooks and owners, and the modes.
    """

    store: str = ""
    roots: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    def check(self, settings: Settings, root: str, mode: str, user: str) -> None:
        """Raises ConfigError when the host does not allow this deploy. `user` is who deploys, and
        whom hooks run as that name nobody."""
        inside = any(root == r or root.startswith(r.rstrip("/") + "/") for r in self.roots)
        if self.roots and not inside:
            raise ConfigError(f"this host allows no target at {root}: see /etc/moorline.toml.")
        if self.modes and mode not in self.modes:
            raise ConfigError(f"this host does not allow mode {mode}: see /etc/moorline.toml.")
        hooks = settings.before_switch + settings.after_switch + settings.check
        wanted = {hook.user or user for hook in hooks if hook.run} | ({settings.owner} - {""})
        denied = sorted(wanted - set(self.users)) if self.users else []
        if denied:
            hint = f" A hook without 'user' runs as {user}." if user in denied else ""
            raise ConfigError(
                f"this host does not allow the user {', '.join(denied)}: see /etc/moorline.toml."
                + hint
            )


def parse_host_policy(text: bytes, where: str = "/etc/moorline.toml") -> HostPolicy:
    """Reads the part of TOML that the host's file needs: `name = "text"` and `name = ["text"]`, one
    a line. Targets have Python 3.9, which has no TOML reader; anything else is refused, so every
    file that is accepted means the same to every TOML reader. Raises ConfigError."""
    try:
        lines = text.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not text in UTF-8.") from None
    fields: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        short = len(line) <= _MOST_POLICY_LINE
        match = _POLICY_LINE.fullmatch(line.strip(" \t")) if short else None
        if match is None or match["name"] in fields:
            raise ConfigError(
                f'{where}, line {number}: write name = "text" or name = ["text", "text"], once.'
            )
        if match["name"]:
            fields[match["name"]] = json.loads(match["value"])
    record = Record(fields, where)
    record.only(("store", "roots", "users", "modes"))
    store = record.text("store", "")
    return HostPolicy(
        store=checked_path(store, where) if store else "",
        roots=tuple(record.texts("roots")),
        users=tuple(record.texts("users")),
        modes=tuple(record.texts("modes")),
    )


def same_application(settings: Settings, app: str, store_id: str, where: Optional[str]) -> None:
    """Raises ConfigError when settings and store belong to different applications."""
    if (settings.app, settings.store_id) != (app, store_id):
        raise ConfigError(
            f"the bundle is for application {settings.app!r} and the store at {where} belongs to "
            f"{app!r}. Mount the right store, or correct 'store' in moorline.toml."
        )
