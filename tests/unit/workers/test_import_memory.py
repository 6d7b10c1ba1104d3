"""An import's memory does not grow with the model."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders.import_stage import context_of, import_stage
from tests.builders.model_folder import single_model, write_folder
from warpctl.workers.imports import model_files
from warpctl.workers.imports.copying import Copier
from warpctl.workers.sources.base import SourceFile
from warpctl.workers.sources.local import LocalSource

MIB = 1024 * 1024
PIECE = bytes(MIB)


@dataclass
class EndlessSource:
    """One file of zeros that exists nowhere."""

    size: int
    uri: str = "endless://zeros"
    pinned_revision: str = ""
    is_single_file: bool = True

    def files(self) -> list[SourceFile]:
        return [SourceFile("zeros", self.size, "zeros")]

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        for position in range(start, self.size, MIB):
            yield PIECE[: self.size - position]

    def copy_uri(self, file: SourceFile) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def peak_bytes() -> Iterator[object]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_copying_holds_a_few_chunks_and_not_the_file(tmp_path: Path, peak_bytes) -> None:
    stage = import_stage(str(tmp_path / "store"), "endless://zeros", what="Prompts")
    context = context_of(stage)
    source = EndlessSource(200 * MIB)

    Copier(source, context.store, context.publication, stage, lambda _: None, lambda _: None).copy_all(source.files())
    manifest = context.publication.commit()

    assert [file.size for file in manifest.files] == [200 * MIB]
    assert peak_bytes() < 64 * MIB


def test_checking_sixteen_gibibytes_reads_their_headers_only(tmp_path: Path, peak_bytes) -> None:
    """A sparse file: reading its data would take minutes, holding it would end the process."""
    size = 16 * 1024 * MIB
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    folder = write_folder(tmp_path / "model", single_model())
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    source = LocalSource(str(folder))

    files = model_files.select(source, source.files(), wait=lambda _: None)
    summary = model_files.check(source, files, wait=lambda _: None)

    assert summary.num_parameters == size // 4
    assert peak_bytes() < 32 * MIB
