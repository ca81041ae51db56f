"""moorline.toml, the environment and the flags become one Config; errors name file, table, key."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.config import Config, load_config, new_config_text, parse_config
from moorline.errors import ConfigError

FULL = b"""
app = "shop"
[store]
path = "/mnt/efs/shop"
[publish]
exclude = ["*.map"]
allow = [".env"]
allow_external_links = true
[target]
root = "/srv/shop"
mode = "link"
[[hooks.before_switch]]
run = ["./bin/migrate", "--yes"]
[[hooks.check]]
url = "http://localhost/"
[groups.PROD]
root = "/srv/prod"
[[groups.PROD.hooks.check]]
run = ["true"]
"""


def reads(text: bytes) -> Callable[[str], bytes]:
    return lambda path: text


def missing(path: str) -> bytes:
    raise FileNotFoundError(path)


def test_every_table_is_read() -> None:
    config = parse_config(FULL, "moorline.toml")

    assert (config.app, config.store, config.path) == ("shop", "/mnt/efs/shop", "moorline.toml")
    assert config.exclude == ("*.map",)
    assert config.allow == {".env"}
    assert config.allow_external_links
    assert (config.settings.root, config.settings.mode) == ("/srv/shop", "link")
    assert config.settings.before_switch[0].run == ("./bin/migrate", "--yes")
    assert config.settings.check[0].url == "http://localhost/"
    production = config.settings.for_group("PROD")
    assert (production.root, production.check[0].run) == ("/srv/prod", ("true",))


def test_an_empty_file_is_the_default() -> None:
    assert parse_config(b"", "moorline.toml") == Config(path="moorline.toml")


def test_settings_leave_the_name_to_the_store() -> None:
    assert parse_config(b'app = "shop"').settings.app == ""


# -- precedence -----------------------------------------------------------------------------------


def test_the_flag_wins_over_the_variable_and_that_over_the_file() -> None:
    environment = {"MOORLINE_STORE": "/variable", "MOORLINE_APP": "variable"}
    flags = {"store": "/flag", "app": None}

    config = load_config(None, environment, flags, read=reads(FULL))

    assert (config.store, config.app) == ("/flag", "variable")
    assert load_config(None, environment, {}, read=reads(FULL)).store == "/variable"
    assert load_config(None, {}, {}, read=reads(FULL)).store == "/mnt/efs/shop"


def test_an_empty_variable_counts_as_not_set() -> None:
    config = load_config(None, {"MOORLINE_STORE": "", "MOORLINE_CONFIG": ""}, read=reads(FULL))

    assert config.store == "/mnt/efs/shop"


def test_an_empty_flag_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--target is empty"):
        load_config(None, {"MOORLINE_TARGET": "/srv/other"}, {"target": ""}, read=reads(FULL))


def test_no_file_is_fine_when_nobody_names_one() -> None:
    config = load_config(None, {}, {"store": "/mnt/s"}, read=missing)

    assert (config.store, config.path) == ("/mnt/s", None)


@pytest.mark.parametrize(
    ("path", "environment", "named"),
    [("x.toml", {}, "--config"), (None, {"MOORLINE_CONFIG": "x.toml"}, "MOORLINE_CONFIG")],
)
def test_a_file_that_is_named_must_be_there(
    path: str | None, environment: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"no configuration at x.toml: {named}"):
        load_config(path, environment, read=missing)


def test_config_names_the_file_to_read(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_bytes(FULL)
    environment = {"MOORLINE_CONFIG": str(tmp_path / "missing.toml")}

    assert load_config(str(tmp_path / "other.toml"), environment).app == "shop"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder\. Name the file"):
        load_config(str(tmp_path), {})


def test_a_relative_store_starts_at_the_folder_of_the_file() -> None:
    text = b'[store]\npath = "../store"\n'

    assert parse_config(text, "/home/ci/moorline.toml").store == "/home/ci/../store"
    assert parse_config(text, "moorline.toml").store == "../store"


def test_what_is_missing_is_named_with_flag_variable_and_key() -> None:
    config = load_config(None, {}, read=missing)

    with pytest.raises(ConfigError) as store:
        config.store_path()
    with pytest.raises(ConfigError) as target:
        config.target_root()

    for part in ("--store", "MOORLINE_STORE", "'path'", "[store]", "moorline.toml"):
        assert part in store.value.message
    for part in ("--target", "MOORLINE_TARGET", "'root'", "[target]", "moorline.toml"):
        assert part in target.value.message


def test_a_target_comes_from_flag_variable_group_or_table() -> None:
    config = load_config(None, {}, read=reads(FULL))

    assert config.target_root() == "/srv/shop"
    assert config.target_root("PROD") == "/srv/prod"
    named = load_config(None, {"MOORLINE_TARGET": "/srv/env"}, read=reads(FULL))
    assert named.target_root("PROD") == "/srv/env"


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ap = 'x'", "c.toml: unknown key 'ap'. Did you mean 'app'?"),
        ("[store]\npth = 'x'", "c.toml: [store]: unknown key 'pth'. Did you mean 'path'?"),
        ("[publish]\nexcludes = []", "c.toml: [publish]: unknown key 'excludes'. Did you mean"),
        ("[target]\nrot = 'x'", "c.toml: target: unknown key 'rot'. Did you mean 'root'?"),
        ("[[hooks.chek]]", "c.toml: hooks: unknown key 'chek'. Did you mean 'check'?"),
        ("[[hooks.check]]\nurll = 'x'", "c.toml: hooks: check: unknown key 'urll'. Did you mean"),
        ("[groups.P]\nmod = 'x'", "c.toml: groups.P: unknown key 'mod'. Did you mean 'mode'?"),
        ("app = 3", "c.toml: 'app' must be a text"),
        ("app = 'a/b'", "c.toml: app: 'a/b' is not a name for an application"),
        ("store = '/x'", "c.toml: 'store' must be a table: write [store]"),
        ("groups = 3", "c.toml: 'groups' must be a table"),
        ("[groups]\nP = 3", "c.toml: groups.P must be a table"),
        ("[target]\nroot = 2026-01-31", "c.toml: "),
        ("[target]\nlinked = ['/etc/passwd']", "must be a path inside the build"),
        ("[publish]\nexclude = '*.map'", "c.toml: [publish]: 'exclude' must be a list of texts"),
        ("[publish]\nexclude = ['ok', '!']", "'exclude' has the pattern '!', which is none"),
        ("[publish]\nexclude = ['[z-a]']", "'exclude' has the pattern '[z-a]', which is none"),
        ("[publish]\nallow = ['.ssh']", "'allow' may hold .git and .env"),
        ("[publish]\nallow_external_links = 1", "'allow_external_links' must be true or false"),
        ("a = 1\nb = [", "c.toml, line 2: Invalid value. The file is not valid TOML"),
        ("a = 1\nb 3\n", "c.toml, line 2, column 3: Expected '=' after a key"),
        ("a = " + "[" * 5000, "c.toml"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text.encode(), "c.toml")

    assert message in raised.value.message
    assert "c.toml" in raised.value.message


def test_bytes_that_are_no_text_are_refused_by_line() -> None:
    with pytest.raises(ConfigError, match=r"c\.toml, line 2: not UTF-8"):
        parse_config(b'app = "x"\n# \xff\n', "c.toml")


def test_a_byte_order_mark_is_no_error() -> None:
    assert parse_config(b'\xef\xbb\xbfapp = "x"\n').app == "x"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_a_clear_error(text: bytes) -> None:
    try:
        parse_config(text, "c.toml")
    except ConfigError as error:
        assert "c.toml" in error.message


@pytest.mark.parametrize("variable", ["MOORLINE_APP", "--app"])
def test_a_bad_name_says_where_it_is_from(variable: str) -> None:
    environment = {variable: "a b"}
    flags = {"app": "a b"} if variable == "--app" else {}

    with pytest.raises(ConfigError, match=f"^{variable}: 'a b' is not a name"):
        load_config(None, environment, flags, read=missing)


# -- what stays out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_directory", "expected"),
    [
        ("app.js.map", False, True),
        ("static/app.js.map", False, True),
        ("static/keep.map", False, False),
        ("node_modules", True, True),
        ("web/node_modules", True, True),
        ("node_modules", False, False),
        ("drafts", True, True),
        ("blog/drafts", True, False),
        ("a/b/c/old", False, True),
        ("index.html", False, False),
        ("new\nline/app.map", False, True),
        ("app.map\n", False, False),
        ("\udcff.map", False, True),
    ],
)
def test_exclude_reads_as_gitignore_does(path: str, is_directory: bool, expected: bool) -> None:
    patterns = ("*.map", "!keep.map", "node_modules/", "/drafts/", "a/**/old", "# no", "")

    excluded = Config(exclude=patterns).excluded()
    assert excluded is not None
    assert excluded(path, is_directory) is expected


def test_without_patterns_nothing_stays_out() -> None:
    assert Config().excluded() is None


# -- the file that init writes --------------------------------------------------------------------


@pytest.mark.parametrize(
    "store", ["/mnt/efs/shop", '/mnt/with "quotes" \\ and\ttab', "/mnt/\N{ANCHOR}\x7f"]
)
def test_the_new_file_says_what_init_was_told(store: str) -> None:
    config = parse_config(new_config_text("shop", store, "tree").encode())

    assert (config.app, config.store) == ("shop", store)
    assert config == Config(app="shop", store=store, path="moorline.toml")


def test_a_path_that_is_not_utf8_cannot_stand_in_the_file() -> None:
    with pytest.raises(ConfigError, match="cannot stand in a TOML file"):
        new_config_text("shop", os.fsdecode(b"/mnt/\xff"), "pack")


def test_every_commented_line_of_the_new_file_is_valid_when_it_counts() -> None:
    text = new_config_text("shop", "/mnt/efs/shop", "pack")
    active = re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)

    config = parse_config(active.encode())

    assert tomllib.loads(active) != tomllib.loads(text)
    assert config.settings.check[0].contains == "Welcome"
    assert config.settings.for_group("PROD").keep_releases == 5
