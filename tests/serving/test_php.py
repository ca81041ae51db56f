"""php-fpm with opcache behind nginx, as docs/serving.md sets it up, and what happens without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from counts import Count
from moorline.errors import PutBack
from moorline.target import Target
from serving.daemons import nginx, php_fpm, wait_until
from serving.going import flip, two_releases
from serving.load import PAUSE_S, under_load
from serving.pages import page
from serving.recipes import hooks_of, recipe
from serving.visits import Connection, get
from trees import Content
from world import World

INI = "/etc/php/8.2/fpm/conf.d/99-shop.ini"
FPM = "/etc/php/8.2/fpm/php-fpm.conf"
SERVER = "/etc/nginx/conf.d/shop-php.conf"
SOCKET = "/run/php/php8.2-fpm.sock"

NAIVE = """
server {
    listen 80;
    root /srv/shop/current;
    location / {
        include fastcgi.conf;
        fastcgi_pass unix:/run/php/php8.2-fpm.sock;
    }
}
"""
"""fastcgi.conf says $document_root, which is the path through the link."""

SLOW = b"""<?php
touch("$_GET[folder]/begun");
while (!file_exists("$_GET[folder]/go")) { usleep(5000); clearstatcache(); }
echo "done";
"""


def build(number: int) -> dict[str, Content]:
    """Pages of PHP that show one half of the page themselves and have the rest in another file."""
    found: dict[str, Content] = {}
    for path in ("/index.php", "/new.php"):
        content = page(number, path)
        middle = len(content) // 2
        rest = f"parts{path}"
        load = b'<?php require "$_SERVER[DOCUMENT_ROOT]/%s";' % rest.encode()
        found[path[1:]] = content[:middle] + load
        found[rest] = content[middle:]
    status = b'<?php echo opcache_get_status()["opcache_statistics"]["num_cached_scripts"];'
    return {**found, "slow.php": SLOW, "status.php": status}


@contextmanager
def serving(here: Path, server: str, fpm: str = "", ini: str = "") -> Iterator[tuple[int, int]]:
    """nginx and php-fpm; the port of the one and the process id of the other."""
    ini = ini or recipe(INI, here)
    with php_fpm(here / "php", ini, fpm) as php:
        text = server.replace(SOCKET, str(here / "php/socket")).replace("/srv/shop", f"{here}/www")
        with nginx(here / "nginx", text) as port:
            yield port, php.pid


def reloading(pid: int) -> Mapping[str, Any]:
    """The hook of the recipe, with what php8.2-fpm.service says that a reload is."""
    return hooks_of(
        "moorline.toml: PHP forgets the old release",
        {("systemctl", "reload", "php8.2-fpm"): ["kill", "-USR2", str(pid)]},
    )


PAGES = ("/index.php", "/new.php")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "link"])
def test_php_answers_with_the_build_that_is_live(here: Path, mode: str, count: Count) -> None:
    with serving(here, recipe(SERVER, here / "www"), recipe(FPM, here)) as (port, pid):
        world = World(here, {"copy": "pack", "link": "tree"}[mode])
        hooks = reloading(pid)
        for number in (1, 2, 3):
            world.publish(str(number), build(number), hooks=hooks)
        world.publish("4", build(4), hooks={**hooks, "check": [{"run": ["false"]}]})
        world.deploy("1", mode=mode)
        with under_load(here, port, paths=PAGES, pause_s=PAUSE_S) as load:
            for number in (2, 3, 1, 2) * 3:
                load.timeline.begin(number)
                world.deploy(str(number), mode=mode)
                load.timeline.settle()
                assert_shows(port, number)
                load.timeline.begin(4, number)
                with pytest.raises(PutBack):
                    world.deploy("4", mode=mode)
                load.timeline.settle()
                assert_shows(port, number)
            load.timeline.begin(1)
            assert world.rollback().id == "1"
            load.timeline.settle()
            assert_shows(port, 1)
    assert not load.wrong, (here / "php/error.log").read_text()[-2000:]
    count.add("switches under load with php-fpm reloaded", 25)
    count.add("responses of php checked", load.responses)


def assert_shows(port: int, number: int) -> None:
    for path, shown in (*zip(PAGES, PAGES, strict=True), ("/a/route?of=it", "/index.php")):
        answer = get(port, path)
        assert (answer.status, answer.body) == (200, page(number, shown))


@pytest.mark.slow
def test_one_request_of_php_is_of_one_release(here: Path, count: Count) -> None:
    """However fast the link moves: the script and what it loads by DOCUMENT_ROOT."""
    world = two_releases(here, [build(1), build(2)])
    with (
        serving(here, recipe(SERVER, world.root)) as (port, _),
        under_load(here, port, paths=PAGES) as load,
    ):
        flip(world, load, Target.switch)
    assert not load.wrong
    assert load.builds == 2
    count.add("bare switches under load", load.timeline.settled)
    count.add("responses of php checked", load.responses)


def test_the_usual_recipe_stays_on_the_old_build_and_mixes_it_with_the_new(here: Path) -> None:
    """opcache finds a script again by its path through the link, without looking where that leads;
    a script that it has not met yet is read from the new build."""
    world = two_releases(here, [build(1), build(2)])
    # With the cache of paths, chance decides: does that worker know the link from before?
    ini = recipe(INI, here) + "realpath_cache_size = 0\n"
    with serving(here, NAIVE, ini=ini) as (port, _):
        assert get(port, "/index.php").body == page(1, "/index.php")
        world.deploy("2")
        assert get(port, "/index.php").body == page(1, "/index.php")
        assert get(port, "/new.php").body == page(2, "/new.php")


@contextmanager
def under_way(here: Path, port: int) -> Iterator[Connection]:
    """A request that php-fpm works on until the file `go` is there."""
    here.chmod(0o777)
    with Connection(port) as connection:
        connection.send(f"/slow.php?folder={here}")
        wait_until((here / "begun").exists)
        yield connection


@pytest.mark.parametrize("fpm", ["", "the recipe"], ids=["as shipped", "the recipe"])
def test_a_reload_waits_for_requests_only_when_told_to(here: Path, fpm: str) -> None:
    with serving(here, recipe(SERVER, here / "www"), fpm and recipe(FPM, here)) as (port, pid):
        world = World(here)
        world.publish("1", build(1))  # whose deploy reloads nothing: that could end the request
        world.publish("2", build(2), hooks=reloading(pid))
        world.deploy("1")
        with under_way(here, port) as connection:
            world.deploy("2")
            if fpm:
                (here / "go").touch()
            answer = connection.answer()
    assert answer.status == (200 if fpm else 502)


def test_without_a_reload_opcache_keeps_every_release(here: Path) -> None:
    with serving(here, recipe(SERVER, here / "www"), recipe(FPM, here)) as (port, pid):
        world = World(here)
        found = []
        for number in (1, 2, 3, 4):
            hooks = reloading(pid) if number == 4 else {}
            world.publish(str(number), build(number), hooks=hooks)
            world.deploy(str(number))
            assert_shows(port, number)
            found.append(cached_scripts(port))
        assert found[0] < found[1] < found[2]
        # The hook returns before the old workers have gone.
        wait_until(lambda: cached_scripts(port) <= found[0])


def cached_scripts(port: int) -> int:
    return int(get(port, "/status.php").body)
