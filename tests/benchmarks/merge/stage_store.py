"""An artifact store with a merge stage to run: python -m tests.benchmarks.merge.stage_store STORE INIT POLICY...

Publishes the folders as imports (hard links on a local disk) and prints the stage input that `warpctl.workers.merge` takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.builders.merge_stage import merge_stage
from warpctl.spec.stage_input import ImportTask, InputArtifact, StageInput, StageKind
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store


def publish(store: Store, folder: Path, *, role: str, key: str) -> InputArtifact:
    """Commit a model folder as an import."""
    task = ImportTask(what="Model", uri=str(folder), revision="main")
    stage = StageInput(
        stage_id=f"import/{role}", kind=StageKind.IMPORT, key=key, attempt_id="1", namespace="default", run="bench",
        storage=store.root, task=task,
    )  # fmt: skip
    publication = Publication(store, stage)
    for path in sorted(folder.iterdir()):
        if publication.copy_file(path.name, str(path)) is None:
            with publication.open_file(path.name) as sink, path.open("rb") as file:
                while piece := file.read(16 << 20):
                    sink.write(piece)
    manifest = publication.commit()
    return InputArtifact(role=role, kind=StageKind.IMPORT, key=key, manifest_digest=manifest.digest)


def main() -> None:
    store = Store.open(sys.argv[1])
    roles = ["init", *(f"member/{number}" for number in range(1, len(sys.argv) - 2))]
    inputs = [
        publish(store, Path(folder), role=role, key=f"{number:064d}")
        for number, (role, folder) in enumerate(zip(roles, sys.argv[2:], strict=True))
    ]
    print(merge_stage(store.root, inputs).to_json())


if __name__ == "__main__":
    main()
