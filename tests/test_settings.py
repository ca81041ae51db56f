"""Settings: one validation for moorline.toml and for the file that a bundle pins."""

from __future__ import annotations

import datetime
import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import ConfigError
from moorline.settings import (
    Hook,
    HostPolicy,
    Settings,
    checked_app,
    checked_path,
    parse_host_policy,
    parse_settings,
    same_application,
    settings_of,
)


def target(**keys: Any) -> Settings:
    return settings_of({"target": keys}, app="site")


def hooks(moment: str = "check", /, **keys: Any) -> Hook:
    made: Settings = settings_of({"hooks": {moment: [keys]}}, app="site")
    (hook,) = getattr(made, moment)
    assert isinstance(hook, Hook)
    return hook


# -- the tables -----------------------------------------------------------------------------------


def test_the_defaults() -> None:
    assert settings_of({}, app="site") == Settings(app="site")
    assert target() == Settings(app="site")
    made = target()
    assert (made.mode, made.keep_releases, made.store_wait_s) == ("copy", 3, 120)


def test_every_key_of_target_is_read() -> None:
    keys = {
        "root": "/srv/www",
        "store": "/mnt/store/",
        "mode": "link",
        "owner": "www-data",
        "keep_releases": 5,
        "linked": ["uploads/", ".env"],
        "store_wait_s": 0,
        "store_timeout_s": 7,
        "deploy_timeout_s": 600,
    }
    made = target(**keys)
    assert {name: getattr(made, name) for name in keys} == {
        **keys,
        "store": "/mnt/store",
        "linked": ("uploads/", ".env"),
    }


BOUNDS = [
    ("keep_releases", 2, 100),
    ("store_wait_s", 0, 3600),
    ("store_timeout_s", 1, 3600),
    ("deploy_timeout_s", 10, 86400),
]
HOOK_BOUNDS = [("timeout_s", 1, 3600), ("retries", 0, 1000), ("retry_wait_s", 0, 600)]


@pytest.mark.parametrize(("name", "least", "most"), BOUNDS)
def test_the_bounds_of_numbers(name: str, least: int, most: int) -> None:
    assert getattr(target(**{name: least}), name) == least
    assert getattr(target(**{name: most}), name) == most
    for wrong in (least - 1, most + 1, -1, True, "5", 5.0, float("nan"), [5], None):
        with pytest.raises(ConfigError, match=name):
            target(**{name: wrong})


@pytest.mark.parametrize(("name", "least", "most"), HOOK_BOUNDS)
def test_the_bounds_of_numbers_of_hooks(name: str, least: int, most: int) -> None:
    assert getattr(hooks(run=["x"], **{name: least}), name) == least
    assert getattr(hooks(run=["x"], **{name: most}), name) == most
    for wrong in (least - 1, most + 1, True, "5", 5.0):
        with pytest.raises(ConfigError, match=name):
            hooks(run=["x"], **{name: wrong})


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("mode", "image"),
        ("mode", "COPY"),
        ("mode", 1),
        ("owner", "Root"),
        ("owner", "www data"),
        ("owner", "-x"),
        ("owner", "0"),
        ("owner", "x" * 33),
        ("owner", "a\n"),
        ("root", "srv/www"),
        ("root", "/"),
        ("root", "//"),
        ("root", "/srv/../etc"),
        ("root", "/srv/.."),
        ("root", "/srv/w w"),
        ("root", "/srv/$HOME"),
        ("root", "/srv/a'b"),
        ("root", "/srv/a\n"),
        ("root", "/srv/caf\u00e9"),
        ("root", "/" + "x" * 200),
        ("root", 5),
        ("store", "mnt"),
        ("store", "/mnt/`id`"),
        ("linked", "uploads/"),
        ("linked", [1]),
        ("linked", [""]),
        ("linked", ["/"]),
        ("linked", ["/etc"]),
        ("linked", ["."]),
        ("linked", ["../x"]),
        ("linked", ["a/../b"]),
        ("linked", ["a//b"]),
        ("linked", ["./a"]),
        ("linked", ["a\0"]),
        ("linked", ["a", "a"]),
        ("linked", ["a", "a/"]),
        ("linked", ["a/", "a/b"]),
        ("linked", ["a/b/c", "x", "a/b"]),
    ],
)
def test_a_wrong_value_is_refused_and_named(key: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        target(**{key: wrong})


def test_neighbours_may_both_be_linked() -> None:
    assert target(linked=["a", "a-b/", "b/a", "b/ab"]).linked == ("a", "a-b/", "b/a", "b/ab")


@pytest.mark.parametrize(
    ("tables", "hint"),
    [
        ({"targets": {}}, "Did you mean 'target'"),
        ({"target": {"rooot": "/x"}}, "Did you mean 'root'"),
        ({"target": {"hooks": {}}}, "unknown key 'hooks'"),
        ({"hooks": {"after_swich": []}}, "Did you mean 'after_switch'"),
        ({"hooks": {"check": [{"command": "x"}]}}, "unknown key 'command'"),
        ({"hooks": {"check": [{"retry": 3}]}}, "Did you mean 'retries'"),
        ({"groups": {"PROD": {"rooot": "/x"}}}, "groups.PROD: .*Did you mean 'root'"),
        ({"groups": {"PROD": {"hooks": {"chek": []}}}}, "groups.PROD: .*Did you mean 'check'"),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(tables: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        settings_of(tables, app="site")


NO_TABLES: list[Any] = [5, "text", [1], True, 1.5, datetime.date(2024, 1, 1)]


@pytest.mark.parametrize("wrong", NO_TABLES)
@pytest.mark.parametrize("table", ["target", "hooks", "groups"])
def test_a_table_that_is_none_is_refused(table: str, wrong: Any) -> None:
    with pytest.raises(ConfigError):
        settings_of({table: wrong}, app="site")
    with pytest.raises(ConfigError):
        settings_of({"groups": {"PROD": wrong if table == "groups" else {table: wrong}}}, app="s")


def test_values_that_only_toml_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="a date or time stands"):
        target(root=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
    with pytest.raises(ConfigError, match="a date or time stands"):
        hooks(run=["x"], timeout_s=datetime.time(1, 2))


# -- groups ---------------------------------------------------------------------------------------

GROUPED = settings_of(
    {
        "target": {"root": "/srv/www", "linked": ["uploads/"], "keep_releases": 4},
        "hooks": {"check": [{"run": ["true"]}], "after_switch": [{"run": ["reload"]}]},
        "groups": {
            "PROD": {
                "root": "/srv/prod",
                "mode": "link",
                "hooks": {"check": [{"url": "http://localhost/"}]},
            },
            "QA": {"hooks": {"after_switch": []}},
        },
    },
    app="site",
)


def test_a_group_overrides_what_it_names_and_keeps_the_rest() -> None:
    prod = GROUPED.for_group("PROD")
    assert (prod.root, prod.mode, prod.keep_releases) == ("/srv/prod", "link", 4)
    assert prod.linked == ("uploads/",)
    assert [hook.shown for hook in prod.check] == ["http://localhost/"]
    assert [hook.shown for hook in prod.after_switch] == ["reload"]


def test_a_group_can_take_hooks_away() -> None:
    qa = GROUPED.for_group("QA")
    assert qa.after_switch == ()
    assert [hook.shown for hook in qa.check] == ["true"]
    assert qa.root == "/srv/www"


def test_an_unnamed_group_has_no_overrides() -> None:
    assert GROUPED.for_group("DEV") is GROUPED


@pytest.mark.parametrize(
    "group",
    [{"mode": "x"}, {"root": "rel"}, {"linked": ["a"]}, {"hooks": 5}, {"hooks": {"check": [{}]}}],
)
def test_a_wrong_group_is_refused_when_the_settings_are_read(group: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"groups\.PROD"):
        settings_of({"groups": {"PROD": group}}, app="site")


def test_a_file_may_be_called_groups() -> None:
    made = settings_of({"target": {"linked": ["a/"]}}, app="site", where="groups.toml")
    assert made.linked == ("a/",)


# -- hooks ----------------------------------------------------------------------------------------


def test_every_key_of_a_hook_is_read() -> None:
    hook = hooks(
        url="https://localhost/health",
        contains="ok",
        timeout_s=5,
        user="www-data",
        retries=9,
        retry_wait_s=2,
    )
    assert hook == Hook((), "https://localhost/health", "ok", 5, "www-data", 9, 2)
    assert hooks(run=["./bin/warm", "a b"]).run == ("./bin/warm", "a b")
    assert hooks(run=["./bin/warm", "a b"]).shown == "./bin/warm a b"


@pytest.mark.parametrize("moment", ["before_switch", "after_switch", "check"])
@pytest.mark.parametrize(
    "hook",
    [
        {},
        {"run": []},
        {"run": [""]},
        {"run": "echo hi"},
        {"run": ["a", 1]},
        {"run": ["a", "b\0c"]},
        {"run": ["./../x"]},
        {"run": ["./a/../../x"]},
        {"run": ["x"], "url": "http://x/"},
        {"run": ["x"], "user": "Root"},
        {"run": ["x"], "user": 0},
        {"url": "file:///etc/passwd"},
        {"url": "localhost"},
        {"url": 5},
    ],
)
def test_a_wrong_hook_is_refused(moment: str, hook: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=moment):
        hooks(moment, **hook)


@pytest.mark.parametrize("moment", ["before_switch", "after_switch"])
def test_only_a_check_asks_a_url(moment: str) -> None:
    with pytest.raises(ConfigError, match="needs 'run', a list of words"):
        hooks(moment, url="http://localhost/")


def test_hooks_are_lists_of_tables() -> None:
    for wrong in ({"run": ["x"]}, ["x"], "x", 5):
        with pytest.raises(ConfigError, match="check"):
            settings_of({"hooks": {"check": wrong}}, app="site")


# -- the text in the store ------------------------------------------------------------------------

tables = st.fixed_dictionaries(
    {},
    optional={
        "target": st.fixed_dictionaries(
            {},
            optional={
                "root": st.sampled_from(("/srv/a", "/srv/b/")),
                "mode": st.sampled_from(("copy", "link")),
                "keep_releases": st.integers(2, 100),
                "linked": st.sampled_from(([], ["a/"], ["a/", "\u00e9", "b\udcff"])),
            },
        ),
        "hooks": st.fixed_dictionaries(
            {}, optional={"check": st.lists(st.just({"run": ["a", "\u00e9\n"]}), max_size=2)}
        ),
        "groups": st.dictionaries(
            st.text(max_size=5), st.sampled_from(({}, {"mode": "link"}, {"hooks": {"check": []}}))
        ),
    },
)


@given(tables)
def test_settings_come_back_from_their_text(given_tables: dict[str, Any]) -> None:
    made = settings_of(given_tables, app="site", store_id="s1")
    again = parse_settings(made.text)
    assert again == made
    assert (again.text, again.digest) == (made.text, made.digest)
    for group in given_tables.get("groups", {}):
        assert again.for_group(group) == made.for_group(group)


def test_the_digest_names_what_is_set_not_how_it_was_written() -> None:
    one = settings_of({"target": {"mode": "copy", "root": "/a"}, "hooks": {}}, app="site")
    two = settings_of({"groups": {}, "target": {"root": "/a", "mode": "copy"}}, app="site")
    other = settings_of({"target": {"root": "/b", "mode": "copy"}}, app="site")
    assert one.digest == two.digest
    assert len({one.digest, other.digest, settings_of({}, app="other").digest}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"app": None},
        {"app": "../x"},
        {"store_id": 5},
        {"target": []},
        {"groups": 5},
        {"target": {"mode": "x"}},
    ],
)
def test_a_damaged_text_is_refused(changes: dict[str, Any]) -> None:
    fields = {**json.loads(settings_of({}, app="site", store_id="s").text), **changes}
    with pytest.raises(ConfigError):
        parse_settings(json.dumps(fields).encode())


@given(st.binary(max_size=100))
def test_any_text_gives_settings_or_a_config_error(raw: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_settings(raw)


@pytest.mark.parametrize("name", ["", "-a", "../x", "a b", "x" * 41, "a\n", "caf\u00e9"])
def test_names_of_applications(name: str) -> None:
    assert checked_app("my-site.v2_") == "my-site.v2_"
    with pytest.raises(ConfigError, match="not a name for an application"):
        checked_app(name)


def test_a_path_loses_its_final_slashes() -> None:
    assert checked_path("/mnt/a//", "here") == "/mnt/a"
    assert checked_path("/" + "x" * 59, "here") == "/" + "x" * 59


def test_settings_and_store_belong_together() -> None:
    made = settings_of({}, app="site", store_id="s1")
    same_application(made, "site", "s1", "/mnt/s")
    for app, store_id in (("other", "s1"), ("site", "s2")):
        with pytest.raises(ConfigError, match="/mnt/s"):
            same_application(made, app, store_id, "/mnt/s")


# -- the host's own word --------------------------------------------------------------------------


def test_the_policy_of_a_host() -> None:
    policy = parse_host_policy(
        b"# what root allows here\n"
        b'store = "/mnt/efs/site"\r\n'
        b"\n"
        b'  roots = ["/srv", "/var/www"]\t\n'
        b'users=["www-data"]\n'
        b'modes = [ "copy" ]'
    )
    assert policy == HostPolicy("/mnt/efs/site", ("/srv", "/var/www"), ("www-data",), ("copy",))
    assert parse_host_policy(b"") == HostPolicy()


@pytest.mark.parametrize(
    "line",
    [
        'roots = "/srv"',
        "roots = [1]",
        "roots = [",
        "store = 5",
        "store = null",
        'store = "rel"',
        'store = "/a/../b"',
        "store = '/a'",
        'stroe = "/a"',
        "[target]",
        "roots",
        "= []",
        'store = "/a" # comment',
        'roots = ["/a",]',
        'store = "/a"\nstore = "/b"',
        'roots = ["\\/a"]',
        'roots = ["\\ud83d\\ude00"]',
        'users = ["\x7f"]',
        '\u00a0store = "/a"',
        '# \u2028roots = ["/x"]\x00',
        "# \x0c",
        "# \r# a",
        "roots = []\r",
    ],
)
def test_a_policy_that_toml_or_we_would_not_read_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"/etc/moorline\.toml"):
        parse_host_policy(line.encode("utf-8"))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"/etc/moorline\.toml"):
        parse_host_policy(b"# \xff\n")


def test_what_looks_like_a_line_inside_a_comment_stays_a_comment() -> None:
    for separator in "\u2028\u2029\u0085":
        text = f'# a{separator}roots = ["/x"]\n'
        assert parse_host_policy(text.encode()) == HostPolicy()


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(ConfigError, match="line 3"):
        parse_host_policy(b'\n# a\nstore = /x\nroots = ["/a"]\n')


SCRAPS = [
    *("store", "roots", "users", "modes", "=", " = ", '"', "'", "[", "]", ", ", ".", "{", "}"),
    *("/a", '"/a"', '["/a"]', "[]", '""', "true", "1", "null", "#", "# x", "\u00e9", "\U0001f600"),
    *("\\", "\\u00e9", "\\/", "\\n", "\\ud800", '\\b\\f\\t\\r\\"\\\\'),
    *("\n", "\r\n", "\r", "\t", " ", "\u2028", "\u0085", "\x0b", "\x1c", "\x7f", "\0", "\u00a0"),
    "\ufeff",
]
scraps = st.one_of(st.sampled_from(SCRAPS), st.characters())
lines = st.one_of(
    st.lists(scraps, max_size=8).map("".join),
    st.builds(
        "{}{}={}{}".format,
        st.sampled_from(("store", "roots", "users", "modes")),
        st.sampled_from(("", " ", "\t", "\u00a0")),
        st.sampled_from(("", " ", "\t", "\u00a0")),
        st.one_of(
            st.lists(st.text(max_size=4), max_size=3).map(
                lambda words: json.dumps(words, ensure_ascii=False)
            ),
            st.lists(st.text(max_size=4), max_size=3).map(json.dumps),
            st.sampled_from(('"/mnt/a"', '""', '"\\u002fa"', '["\\u0041"]')),
        ),
    ),
)


@given(st.lists(lines, max_size=4).map("\n".join))
def test_every_accepted_policy_means_the_same_to_a_toml_reader(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        policy = parse_host_policy(raw)
    except ConfigError:
        return
    said = tomllib.loads(raw.decode("utf-8"))
    store = said.pop("store", "")
    assert policy.store == (store.rstrip("/") or store)
    for name in ("roots", "users", "modes"):
        assert getattr(policy, name) == tuple(said.pop(name, ()))
    assert not said


def deploys(
    policy: HostPolicy, root: str = "/srv/www", mode: str = "copy", user: str = "www-data",
    **tables: Any,
) -> bool:  # fmt: skip
    try:
        policy.check(settings_of(tables, app="site"), root, mode, user)
    except ConfigError as error:
        assert "/etc/moorline.toml" in error.message
        return False
    return True


def test_an_empty_policy_allows_everything() -> None:
    assert deploys(HostPolicy(), "/anywhere", "link", target={"owner": "root"})


@pytest.mark.parametrize(
    ("root", "allowed"),
    [("/srv", True), ("/srv/a", True), ("/srvx", False), ("/var", False), ("/", False)],
)
def test_a_policy_restricts_roots_by_whole_names(root: str, allowed: bool) -> None:
    assert deploys(HostPolicy(roots=("/srv",)), root) is allowed
    assert deploys(HostPolicy(roots=("/opt", "/srv/")), root + "/x") is (root == "/srv/a" or root == "/srv")  # noqa: E501  # fmt: skip


def test_a_policy_restricts_modes_and_users() -> None:
    assert deploys(HostPolicy(modes=("copy",)))
    assert not deploys(HostPolicy(modes=("copy",)), mode="link")
    policy = HostPolicy(users=("www-data",))
    run = {"run": ["x"]}
    assert deploys(policy, hooks={"check": [run]}, target={"owner": "www-data"})
    assert not deploys(policy, target={"owner": "root"})
    for moment in ("before_switch", "after_switch", "check"):
        assert deploys(policy, hooks={moment: [{**run, "user": "www-data"}]})
        assert not deploys(policy, hooks={moment: [run, {**run, "user": "root"}]})
        assert not deploys(policy, user="root", hooks={moment: [run]})
        assert deploys(HostPolicy(users=("root",)), user="root", hooks={moment: [run]})
    asks = {"check": [{"url": "http://127.0.0.1/"}]}
    assert deploys(policy, user="root", hooks=asks), "an address is asked by nobody's program"
