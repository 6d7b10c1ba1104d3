"""`warpctl` whose workers are fake_worker.py: `python fake_warpctl.py run spec.yaml`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from warpctl.cli.main import main

    if sys.argv[1:2] in (["run"], ["report"]):
        from warpctl.executors import local

        local.WORKERS = dict.fromkeys(local.WORKERS, "tests.unit.cli.fake_worker")
    main()
