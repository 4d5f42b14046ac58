"""Reads a generated log of many rows as a stream and reports its time and peak memory.

``python benchmarks/stream_log.py --rows 100000000 --users 1000000 --items 200000``
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from recgym.data.files import open_table
from recgym.data.own import events_log
from recgym.data.stream import stream

MAPPING = {"user": "user", "item": "item", "time": "time", "quantity": "quantity"}
BATCH = 1 << 20  # rows
SCHEMA = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("time", pa.int64()), ("quantity", pa.int8())])


def generate(path: Path, rows: int, users: int, items: int, seed: int = 0) -> None:
    """A shuffled purchase log: popular items are bought more, times in seconds of five years."""
    rng = np.random.default_rng(seed)
    with pa.parquet.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            columns = {
                "user": rng.integers(0, users, count),
                "item": (items * rng.random(count) ** 3).astype(np.int64),
                "time": rng.integers(1_500_000_000, 1_650_000_000, count),
                "quantity": rng.integers(1, 5, count).astype(np.int8),
            }
            writer.write_table(pa.table(columns, schema=SCHEMA))


def main() -> None:
    """Prints one JSON object; memory is that of the whole process, at its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--max-users", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "events.parquet"
        generate(path, options.rows, options.users, options.items)
        size = path.stat().st_size
        start = time.perf_counter()
        log = stream(
            open_table(path),
            path,
            list(MAPPING.values()),
            "user",
            lambda rows, label: events_log(rows, MAPPING, "s", label),
            max_users=options.max_users,
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                **vars(options),
                "file_gb": round(size / 1e9, 2),
                "events_kept": len(log),
                "seconds": round(seconds, 1),
                "columns_gb": round(log.nbytes / 1e9, 3),
                "peak_gb": round(peak / 1e9, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
