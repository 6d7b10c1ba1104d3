"""Where this machine's Chromium is; installed from Debian where that is all that is missing."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

from tests.servers.go_programs import cache_folder, locked

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "WARPCTL_CHROMIUM"


@functools.cache
def find_chromium() -> tuple[str, str]:
    """(path, ""), or ("", why there is none)."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return (named, "") if shutil.which(named) else ("", f"{VARIABLE} is {named}, which is no program")
    if path := _installed():
        return path, ""
    hint = f"install Chromium or Chrome, or name it in {VARIABLE}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return "", f"none of {', '.join(NAMES)} is on PATH; {hint}"
    cache_folder().mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "apt.lock"):
        if path := _installed():  # another process was faster
            return path, ""
        print("installing chromium", file=sys.stderr, flush=True)
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            done = subprocess.run(["apt-get", *command], capture_output=True, text=True, check=False, env=quiet)
            if done.returncode:
                return "", f"apt-get {' '.join(command)} failed: {done.stderr.strip()[-300:]}; {hint}"
    return _installed(), ""


def _installed() -> str:
    return next((path for name in NAMES if (path := shutil.which(name))), "")
