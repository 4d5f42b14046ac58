"""User-steps per second beside other simulators: ``recgym bench`` from a checkout.

python benchmarks/speed.py --suite peers,single --out runs/speed
python benchmarks/speed.py --help
"""

from __future__ import annotations

import sys

from recgym.cli import app

if __name__ == "__main__":
    app(["bench", *sys.argv[1:]], prog_name="recgym")
