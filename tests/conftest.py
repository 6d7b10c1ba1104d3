"""What holds for every test: no property test is judged by how long an example took."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("warpctl", deadline=None)
settings.load_profile("warpctl")
