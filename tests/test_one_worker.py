from __future__ import annotations

from collections import OrderedDict

import pytest

from one_worker import LoadFolderScheduling, bring_forward


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/nfs/test_a.py::test[x]", "tests/nfs/"),
        ("tests/nfs/test_b.py::test", "tests/nfs/"),
        ("tests/test_a.py::test", "tests/test_a.py"),
        ("tests/crash/test_a.py::test", "tests/crash/test_a.py"),
    ],
)
def test_tests_that_share_a_machine_share_a_worker(test: str, scope: str) -> None:
    scheduling = object.__new__(LoadFolderScheduling)
    assert scheduling._split_scope(test) == scope


def test_what_takes_long_begins_first() -> None:
    waiting = ["tests/test_a.py", "tests/crash/test_b.py", "tests/serving/test_c.py", "tests/nfs/"]
    queue, begun = OrderedDict.fromkeys(waiting), []
    while queue:
        bring_forward(queue)
        begun.append(queue.popitem(last=False)[0])
    assert begun == [*reversed(waiting[1:]), "tests/test_a.py"]
    bring_forward(queue)
