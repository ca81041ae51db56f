from __future__ import annotations

import pytest

from one_worker import LoadFolderScheduling


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
