"""A cluster for a developer, which lives until it is taken down: `make cluster`, `make cluster TIER=node`, `make cluster-down`.

python -m tests.cluster.harness.developer up [api | node]
python -m tests.cluster.harness.developer down
"""

from __future__ import annotations

import sys

from tests.cluster.harness import binaries, images, prerequisites
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.node import BUCKET, NodeCluster
from tests.cluster.harness.state import destroy, is_given_away, states_folder, sweep

NAME = "dev"


def up(tier: str) -> None:
    """Start a cluster and print how to reach it."""
    state = states_folder() / NAME
    if is_given_away(state):
        running = (state / "tier").read_text()
        if running != tier:
            raise SystemExit(f"error: a cluster of the {running} tier is up\nhint: make cluster-down")
    else:
        if tier == "node" and (reason := prerequisites.missing()):
            raise SystemExit(f"error: no node tier here: {reason}\nhint: make cluster gives one without nodes")
        kind = NodeCluster if tier == "node" else ApiCluster
        with kind(name=NAME) as cluster:
            (state / "tier").write_text(tier)
            _say(cluster)
            cluster.detach()
    print((state / "said").read_text(), end="")


def _say(cluster: ApiCluster) -> None:
    lines = [f"export KUBECONFIG={cluster.kubeconfig}", f"# kubectl of the same version: {binaries.KUBECTL.path()}"]
    if isinstance(cluster, NodeCluster):
        lines += [
            f"# object store: STORAGE_EMULATOR_HOST={cluster.storage_endpoint}, gs://{BUCKET}",
            f"# push images to {cluster.registry}, pods pull them from {images.REGISTRY}",
        ]
    (cluster.state / "said").write_text("\n".join(lines) + "\n")


def down() -> None:
    """Remove every trace: of the developer's cluster, and of those whose owners have died."""
    sweep()
    state = states_folder() / NAME
    if state.exists():
        destroy(state)
    if not any(states_folder().iterdir()):
        states_folder().rmdir()


if __name__ == "__main__":
    if sys.argv[1:] == ["down"]:
        down()
    elif sys.argv[1:2] == ["up"] and sys.argv[2:] in (["api"], ["node"], []):
        up((sys.argv[2:] or ["api"])[0])
    else:
        raise SystemExit(__doc__)
