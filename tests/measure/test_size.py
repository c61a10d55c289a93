"""Sizes are bytes that exist, or null."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.errors import DataError
from tvmcomp.measure import size


def test_sizes_are_counted(tmp_path):
    file = tmp_path / "net.tvmcomp"
    file.write_bytes(bytes(1000))
    params = {"w": np.zeros((3, 5), np.int8), "s": np.zeros(3, np.float32)}
    found = size(params=params, library=b"123456", file=file)
    assert found.to_dict() == {"params_bytes": 27, "library_bytes": 6, "file_bytes": 1000}


def test_a_library_may_be_a_file_and_absent_parts_are_null(tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(bytes(12))
    assert size(library=library).to_dict() == {
        "params_bytes": None,
        "library_bytes": 12,
        "file_bytes": None,
    }
    assert size(params={}).params_bytes == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.so"):
        size(library=tmp_path / "nothing.so")
