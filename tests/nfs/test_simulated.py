"""On the simulator: the faults of a share, each where it bites, and what a step costs there."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from counts import Count
from moorline import workflow
from moorline.config import Config
from moorline.disk import Disk
from moorline.errors import Error
from moorline.results import DeployResult, PublishResult
from moorline.settings import settings_of
from nfs import needs
from nfs.simulator import Simulator
from nfs.test_budgets import BUDGETS
from trees import SITE, Content, write_tree

pytestmark = pytest.mark.slow

NEXT: dict[str, Content] = {"index.html": b"<h1>two</h1>", "new.txt": b"new"}


class OneProcess(Disk):
    forks = False


class Local:
    """A store on a simulated share, a source and a target on the local disk."""

    def __init__(self, share: Simulator, folder: Path, layout: str = "pack") -> None:
        self.share = share
        self.folder = folder
        self.site = folder / "site"
        self.root = folder / "www"
        self.store = share.mountpoint / folder.name
        self.disk = OneProcess()
        mode = {"pack": "copy", "tree": "link"}[layout]
        settings = settings_of({"target": {"mode": mode, "store_wait_s": 0}}, app="shop")
        self.config = Config(app="shop", store=str(self.store), settings=settings)
        workflow.init(str(self.store), app="shop", layout=layout, folder=str(folder))

    def publish(self, id: str) -> PublishResult:
        return workflow.publish(
            str(self.site), config=self.config, id=id, bundle=self._bundle(id), disk=self.disk,
            environment={},
        )  # fmt: skip

    def deploy(self, id: str) -> DeployResult:
        return workflow.deploy(
            self._bundle(id), config=self.config, target=str(self.root), disk=self.disk
        )

    def _bundle(self, id: str) -> str:
        return str(self.folder / f"bundle.{id}")

    def ids(self) -> list[str]:
        return [line.build.id for line in workflow.builds(self.config) if line.present]


@pytest.mark.parametrize(
    ("operation", "error", "path", "layout"),
    [
        ("write", "ENOSPC", "*/packs/*", "pack"),
        ("write", "EDQUOT", "*/incoming/*/index", "pack"),
        ("write", "EIO", "*/incoming/*/build.json", "tree"),
        ("write", "ESTALE", "*/incoming/*/tree/*", "tree"),
        ("create", "ENOSPC", "*/packs/*", "pack"),
        ("create", "EACCES", "*/incoming/*/manifest.gz", "tree"),
        ("mkdir", "EROFS", "*/incoming/*", "pack"),
        ("link", "EIO", "*/sequence/*", "pack"),
        ("rename", "EIO", "*/incoming/*", "pack"),
        ("rename", "EIO", "*/incoming/*", "tree"),
    ],
)
def test_a_fault_fails_a_publish_and_a_mended_share_takes_it(
    simulated: Simulator, tmp_path: Path, count: Count,
    operation: str, error: str, path: str, layout: str,
) -> None:  # fmt: skip
    shop = Local(simulated, tmp_path, layout)
    write_tree(shop.site, SITE)
    shop.publish("one")
    write_tree(shop.site, NEXT)
    simulated.fail(operation, error, path=path)

    with pytest.raises(Error, match=r"^publish failed: ") as refusal:
        shop.publish("two")

    assert refusal.value.exit_code == 1
    assert simulated.faults() > 0
    simulated.mend()
    assert shop.ids() == ["one"]
    assert not shop.publish("two").already
    assert shop.deploy("two").live == "two"
    count.add("faults of a FUSE share")


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "EACCES"])
@pytest.mark.parametrize("operation", ["open", "read"])
def test_a_fault_fails_a_deploy_and_the_old_release_stays_live(
    simulated: Simulator, tmp_path: Path, count: Count, operation: str, error: str
) -> None:
    shop = Local(simulated, tmp_path)
    write_tree(shop.site, SITE)
    shop.publish("one")
    shop.deploy("one")
    write_tree(shop.site, NEXT)
    shop.publish("two")
    simulated.fail(operation, error, path="*/packs/*")

    with pytest.raises(Error) as refusal:
        shop.deploy("two")

    assert refusal.value.exit_code in (1, 3)
    assert simulated.faults() > 0
    assert (shop.root / "current/index.html").read_bytes() == b"<h1>one</h1>"
    simulated.mend()
    assert shop.deploy("two").live == "two"
    count.add("faults of a FUSE share")


def test_the_limit_of_links_is_met_and_passed(simulated: Simulator, tmp_path: Path) -> None:
    shop = Local(simulated, tmp_path, "tree")
    write_tree(shop.site, SITE)
    simulated.order(links=3)
    for number in range(7):
        shop.publish(str(number))
    builds = simulated.directory / shop.store.name / "builds"  # the mount may believe old counts
    links = [(builds / f"{n}/tree/index.html").stat().st_nlink for n in range(7)]
    assert links == [3, 3, 3, 3, 3, 3, 1]


def test_steps_stay_below_their_budget_for_60000_files(in_memory: Path, count: Count) -> None:
    """As test_budgets, for more files than a real client is patient with. What it costs to look
    (getattr) is left to that test: it depends on the time that passes. Each further megabyte of
    manifest and index is a read or a write."""
    needs.need_fuse()
    with Simulator(in_memory / "efs.backing", in_memory / "efs") as share:
        few, many, most = (_costs(share, in_memory / str(n), n) for n in (200, 7500, 60_000))
    for step in few:
        assert many[step] == few[step], step
        assert most[step].total() < BUDGETS[step], f"{step}: {most[step]}"
        assert most[step].keys() == few[step].keys(), step
    count.add("files of a build whose steps have a budget of operations", 60_000)


def test_a_name_is_made_with_one_request_as_on_nfs(simulated: Simulator) -> None:
    """FUSE looks for it first, and libfuse at it afterwards: neither is a request of NFS. The
    folder that has changed is looked at, as there."""
    folder = os.open(simulated.mountpoint, os.O_RDONLY)
    try:
        os.listdir(folder)
        before = simulated.operations()
        os.close(os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=folder))
        made = Counter(create=1, close=1, getattr=1)
        assert simulated.operations() - before == made
        with pytest.raises(FileNotFoundError):
            os.stat("never made", dir_fd=folder)
        assert simulated.operations() - before == made + Counter(getattr=1)
    finally:
        os.close(folder)


def _costs(share: Simulator, folder: Path, files: int) -> dict[str, Counter[str]]:
    """Operations on the share but for looks: publish B after A, deploy B where A is live."""
    folder.mkdir()
    shop = Local(share, folder)
    write_tree(shop.site, {f"d{n % 20}/f{n}": b"%d" % n for n in range(files)})
    shop.publish("one")
    shop.deploy("one")
    write_tree(shop.site, NEXT)
    counts = [share.operations()]
    for step in (shop.publish, shop.deploy):
        step("two")
        counts.append(share.operations())
    found = {"publish": counts[1] - counts[0], "deploy": counts[2] - counts[1]}
    for cost in found.values():
        del cost["getattr"]
    return found
