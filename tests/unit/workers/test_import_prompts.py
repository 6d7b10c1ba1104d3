"""What an import takes from a prompt set, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.import_stage import import_stage, is_committed, run_import
from tests.builders.model_folder import write_folder
from warpctl.errors import InputError

LINES = b'{"prompt": "one"}\n{"prompt": "two"}\n'


def test_one_file_is_published_under_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"prompts.jsonl": LINES, "other.jsonl": b"not looked at"})

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder / "prompts.jsonl"), what="Prompts"))

    assert {name: artifact.read(name) for name in artifact.names()} == {"prompts.jsonl": LINES}
    assert artifact.manifest.outcome["numBytes"] == len(LINES)


def test_a_folder_gives_all_its_prompt_files_and_nothing_else(tmp_path: Path) -> None:
    parquet = b"PAR1" + bytes(20) + b"PAR1"
    files = {"a/x.jsonl": LINES, "b.parquet": parquet, "empty.jsonl": b"", "README.md": b"#", ".cache/y.jsonl": b"x"}
    folder = write_folder(tmp_path / "prompts", files)

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder), what="Prompts"))

    assert {name: artifact.read(name) for name in artifact.names()} == {"a/x.jsonl": LINES, "b.parquet": parquet}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no *.jsonl or *.parquet, found nothing"),
        ({"prompts.csv": b"prompt"}, "found prompts.csv"),
        ({"prompts.jsonl": b""}, "prompts.jsonl is empty"),
        ({"prompts.jsonl": b"\n \n\n"}, "only blank lines"),
        ({"prompts.jsonl": b"hello\n"}, "its first line is not JSON"),
        ({"prompts.jsonl": b'"hello"\n'}, "its first line is not a JSON object"),
        ({"prompts.jsonl": b"[" * 100_000}, "its first line is not JSON"),
        ({"prompts.parquet": LINES}, "is not a Parquet file"),
    ],
    ids=["nothing", "csv", "empty", "blank", "text", "string", "nested", "jsonl named parquet"],
)
def test_what_holds_no_prompts_is_refused(tmp_path: Path, files: dict[str, bytes], complaint: str) -> None:
    (tmp_path / "prompts").mkdir()
    folder = write_folder(tmp_path / "prompts", files)
    storage = str(tmp_path / "store")

    with pytest.raises(InputError) as caught:
        run_import(import_stage(storage, str(folder), what="Prompts"))

    assert complaint in caught.value.message
    assert not is_committed(storage)


def test_a_first_line_above_a_mebibyte_is_left_to_the_reader(tmp_path: Path) -> None:
    data = b'{"prompt": "' + b"x" * 2_000_000 + b'"}\n'
    folder = write_folder(tmp_path / "prompts", {"long.jsonl": data})

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder), what="Prompts"))

    assert artifact.read("long.jsonl") == data
