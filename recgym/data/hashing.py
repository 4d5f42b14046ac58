"""A content hash of columns and tables that does not depend on how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd


def content_hash(columns: Mapping[str, np.ndarray], tables: Mapping[str, pd.DataFrame]) -> str:
    """The sha256 (hex) of named columns and named tables.

    Canonical form: columns and tables in order of name; whole numbers and times as little-endian int64, numbers as
    little-endian float64 with one NaN and no negative zero, text as length-prefixed UTF-8. Row order counts.
    """
    digest = hashlib.sha256()
    for name in sorted(columns):
        digest.update(f"column {name} {len(columns[name])}\n".encode())
        _update(digest, columns[name])
    for name in sorted(tables):
        table = tables[name]
        digest.update(f"table {name} {len(table)} {table.shape[1]}\n".encode())
        _update(digest, table.index.to_numpy())
        for column in sorted(table.columns, key=str):
            digest.update(f"column {column}\n".encode())
            series = table[column]
            numeric = pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype)
            if numeric:
                _update(digest, series.to_numpy(dtype=np.float64, na_value=np.nan))
            else:
                _update(digest, series.to_numpy(dtype=object))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, array: np.ndarray) -> None:
    if array.dtype.kind == "M":
        digest.update(b"time\n" + array.astype("datetime64[ns]").astype("<i8").tobytes())
    elif array.dtype.kind == "b":
        digest.update(b"flag\n" + array.astype("u1").tobytes())
    elif array.dtype.kind in "iu":
        digest.update(b"integer\n" + array.astype("<i8").tobytes())
    elif array.dtype.kind == "f":
        number = array.astype("<f8") + 0.0  # adding 0 turns -0 into 0
        number[np.isnan(number)] = np.nan
        digest.update(b"number\n" + number.tobytes())
    else:
        codes, values = pd.factorize(array, use_na_sentinel=True)
        digest.update(f"text {len(values)}\n".encode())
        for value in values:
            encoded = str(value).encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        digest.update(np.asarray(codes).astype("<i8").tobytes())  # a missing value is -1
