"""What nginx makes of a link that moves, as docs/serving.md tells it: each rule there has a test
here, and most a second one that shows what happens without it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from counts import Count
from moorline.target import Target
from serving.daemons import nginx
from serving.going import flip, two_releases
from serving.load import Load, under_load
from serving.pages import PATHS, page
from serving.recipes import recipe
from serving.visits import Connection, get
from trees import Content
from world import World

RECIPE = "/etc/nginx/conf.d/shop.conf"
LONG = "0000000002"
"""The id of build 2 where the names of releases differ in length."""

PLAIN = """
server {
    listen 80;
    root /srv/shop/current;
    MORE
    try_files $uri $uri.html $uri/index.html =404;
}
"""


def plain(root: Path, more: str = "") -> str:
    """The configuration that everybody writes first."""
    return PLAIN.replace("MORE", more).replace("/srv/shop", str(root))


def flipped(world: World, http: str, paths: Sequence[str] = PATHS, until_wrong: int = 0) -> Load:
    """What the load met while the link moved some thousand times."""
    with (
        nginx(world.here / "nginx", http) as port,
        under_load(world.here, port, paths=paths) as load,
    ):
        flip(world, load, Target.switch, until_wrong=until_wrong)
    return load


# -- one request, one release ---------------------------------------------------------------------

FORMS: list[dict[str, Content]] = [
    {"about.html": page(1, "/about")},
    {"about/index.html": page(2, "/about")},
]
"""One page in the two forms that generators give it."""

ABOUT = ["/about"]


@pytest.mark.slow
def test_nginx_looks_up_a_path_more_than_once(here: Path, count: Count) -> None:
    """With the plain root, a page that changes its form is not found when the link moves between
    two looks of one request."""
    load = flipped(two_releases(here, FORMS), plain(here / "www"), ABOUT, until_wrong=3)
    assert set(load.wrong) == {"/about: status 404"}
    count.add("failures of other configurations noticed", load.wrong.total())


@pytest.mark.slow
def test_with_the_recipe_it_looks_into_one_release(here: Path, count: Count) -> None:
    load = flipped(two_releases(here, FORMS), recipe(RECIPE, here / "www"), ABOUT)
    assert not load.wrong
    assert load.builds == 2
    count.add("bare switches under load", load.timeline.settled)
    count.add("responses under load checked", load.responses)


@pytest.mark.slow
def test_realpath_root_in_a_set_fails_where_names_differ_in_length(
    here: Path, count: Count
) -> None:
    """nginx asks for the value twice: for its length, and then to copy it."""
    server = plain(here / "www", "set $release $realpath_root; location / { root $release; }")
    load = flipped(two_releases(here, ids=("1", LONG)), server, until_wrong=3)
    assert any("status 500" in wrong for wrong in load.wrong), load.wrong
    count.add("failures of other configurations noticed", load.wrong.total())


@pytest.mark.slow
def test_the_recipe_does_not(here: Path, count: Count) -> None:
    load = flipped(two_releases(here, ids=("1", LONG)), recipe(RECIPE, here / "www"))
    assert not load.wrong
    assert load.builds == 2
    count.add("bare switches under load", load.timeline.settled)
    count.add("responses under load checked", load.responses)


# -- caches and links -----------------------------------------------------------------------------

CACHE = "open_file_cache max=1000 inactive=10m; open_file_cache_valid 10m;"


def test_open_file_cache_serves_the_old_build_through_a_plain_root(here: Path) -> None:
    """What was asked for before stays old until open_file_cache_valid is over, what was not is new:
    a page of one build with the parts of another."""
    world = two_releases(here)
    with (
        nginx(here / "nginx", plain(world.root, CACHE)) as port,
        Connection(port) as connection,  # one worker, so one cache
    ):
        assert connection.get("/index.html").body == page(1, "/index.html")
        world.deploy("2")
        assert connection.get("/index.html").body == page(1, "/index.html")
        assert connection.get("/css/site.css").body == page(2, "/css/site.css")


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_open_file_cache_is_harmless_with_the_recipe(here: Path, mode: str) -> None:
    """A release has another name each time, so nothing that is cached is asked for again."""
    world = two_releases(here, mode=mode)
    with (
        nginx(here / "nginx", CACHE + recipe(RECIPE, world.root)) as port,
        Connection(port) as connection,
    ):
        for number in (1, 2, 1, 2):
            world.deploy(str(number), mode=mode)
            for path in PATHS:
                assert connection.get(path).body == page(number, path)


def test_disable_symlinks_needs_a_root_to_begin_at(here: Path) -> None:
    world = World(here)
    world.publish("1", {"a": b"a", "out": "a"}, target={"linked": ["uploads/"]})
    world.deploy("1")
    (world.root / "shared/uploads/u").write_bytes(b"u")
    found = {}
    for name, server in {
        "on": plain(world.root, "disable_symlinks on;"),
        "from": plain(world.root, "disable_symlinks on from=$document_root;"),
        "owner": plain(world.root, "disable_symlinks if_not_owner from=$document_root;"),
    }.items():
        with nginx(here / name, server) as port:
            found[name] = [get(port, path).status for path in ("/a", "/out", "/uploads/u")]
    assert found == {"on": [404, 404, 404], "from": [200, 404, 404], "owner": [200, 200, 200]}


# -- requests that are under way ------------------------------------------------------------------

BIG = 40_000_000
"""More than all buffers between nginx and a client who does not read."""


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_a_download_under_way_ends_as_it_began(here: Path, mode: str) -> None:
    """Even when its release is removed meanwhile: nginx has the file open."""
    world = World(here, "pack" if mode == "copy" else "tree")
    old = bytes(range(250)) * (BIG // 250)
    for number in (1, 2, 3):
        content = old if number == 1 else page(number, "/big")
        world.publish(str(number), {"big": content}, target={"keep_releases": 2})
    world.deploy("1", mode=mode)
    first = world.live
    with nginx(here / "nginx", recipe(RECIPE, world.root)) as port, Connection(port) as slow:
        slow.send("/big")
        status, headers = slow.head()
        begin = slow.body(1000)
        for number in (2, 3):
            world.deploy(str(number), mode=mode)
            assert get(port, "/big").body == page(number, "/big")
        assert first.exists() == (mode == "link")
        rest = slow.body(int(headers["content-length"]) - len(begin))
    assert status == 200
    assert begin + rest == old


def test_a_download_that_is_resumed_begins_anew_in_another_build(here: Path) -> None:
    """If-Range, which browsers send when they go on with a download."""
    world = two_releases(here)
    path = "/img/big.bin"
    with nginx(here / "nginx", recipe(RECIPE, world.root)) as port:
        etag = get(port, path).headers["etag"]
        same = get(port, path, range="bytes=1000-", if_range=etag)
        world.deploy("2")
        other = get(port, path, range="bytes=1000-", if_range=etag)
    assert (same.status, same.body) == (206, page(1, path)[1000:])
    assert (other.status, other.body) == (200, page(2, path))


def test_a_page_from_before_the_switch_finds_its_files_after_it(here: Path) -> None:
    world = World(here)
    name = "moorline.toml: files that pages of the release before still name"
    tables = tomllib.loads(recipe(name, world.root))
    for number in (1, 2):
        spec: dict[str, Content] = {
            "index.html": b"assets/app-%d.js" % number,
            f"assets/app-{number}.js": b"// %d" % number,
            "assets/same.css": b"body{}",
        }
        world.publish(str(number), spec, **tables)
    world.deploy("1")
    with (
        nginx(here / "plain", recipe(RECIPE, world.root)) as without,
        nginx(here / "nginx", recipe("/etc/nginx/conf.d/shop-assets.conf", world.root)) as port,
    ):
        page_before = get(port, "/index.html").body.decode()
        etag = get(port, f"/{page_before}").headers["etag"]
        world.deploy("2")
        page_after = get(port, "/index.html").body.decode()
        found = [get(port, f"/{p}").body for p in (page_before, page_after, "assets/same.css")]
        assert found == [b"// 1", b"// 2", b"body{}"]
        assert get(port, f"/{page_before}", if_none_match=etag).status == 304
        assert get(port, "/assets/none.js").status == 404
        assert get(without, f"/{page_before}").status == 404


# -- validators -----------------------------------------------------------------------------------


def test_if_modified_since_before_is_wrong_after_a_rollback(here: Path) -> None:
    """A rollback brings older times back. The default, `exact`, sees that they are others."""
    world = two_releases(here)
    path = "/index.html"
    with (
        nginx(here / "exact", plain(world.root)) as exact,
        nginx(here / "before", plain(world.root, "if_modified_since before;")) as before,
    ):
        world.deploy("2")
        modified = get(exact, path).headers["last-modified"]
        world.rollback()
        assert get(before, path, if_modified_since=modified).status == 304  # and it is changed
        answer = get(exact, path, if_modified_since=modified)
    assert (answer.status, answer.body) == (200, page(1, path))


def test_a_compressed_page_is_told_apart_too(here: Path) -> None:
    world = two_releases(here)
    gzip = "gzip on; gzip_types *; gzip_min_length 1;"
    with nginx(here / "nginx", plain(world.root, gzip)) as port:
        first = get(port, "/css/site.css", accept_encoding="gzip")
        assert first.headers["content-encoding"] == "gzip"
        etag = first.headers["etag"]
        again = get(port, "/css/site.css", accept_encoding="gzip", if_none_match=etag)
        world.deploy("2")
        changed = get(port, "/css/site.css", accept_encoding="gzip", if_none_match=etag)
    assert etag.startswith("W/")
    assert (again.status, changed.status) == (304, 200)
