"""A file or folder on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from warpctl.errors import InputError
from warpctl.workers.sources.base import READ_BYTES, SourceFile, changed


class LocalSource:
    """`path` with its ~ expanded; symbolic links may not lead out of the folder.

    The one exception is the layout of the hub's own cache, where a snapshot's files are links to ../../blobs.
    """

    pinned_revision = ""

    def __init__(self, path: str) -> None:
        self.root = Path(path).expanduser().absolute()
        if not self.root.exists():
            raise InputError(f"{self.root} does not exist", hint="the path must exist on the machine that imports")
        self.is_single_file = not self.root.is_dir()
        self.uri = str(self.root)
        self._folder = self.root.parent if self.is_single_file else self.root
        self._bounds = _bounds(self._folder)

    def files(self) -> list[SourceFile]:
        if self.is_single_file:
            return [self._listed(self.root)]
        paths = sorted(path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return [self._listed(path) for path in paths if not path.is_dir()]

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        path = self._folder / file.name
        self._check_inside(path)
        with path.open("rb") as stream:
            stream.seek(start)
            while piece := stream.read(READ_BYTES):
                yield piece
        if _fingerprint(path) != file.fingerprint:
            raise changed(self, file, "its size or time of change is another")

    def copy_uri(self, file: SourceFile) -> str | None:
        path = self._folder / file.name
        self._check_inside(path)
        return str(path.resolve())

    def close(self) -> None:
        """Nothing is kept open."""

    def _listed(self, path: Path) -> SourceFile:
        # A link that leads out is listed, so that the error names it if the import wants it, and not otherwise.
        name = path.relative_to(self._folder).as_posix()
        try:
            return SourceFile(name, path.stat().st_size, _fingerprint(path))
        except FileNotFoundError as error:
            raise InputError(f"{path} is a link to nothing", hint="remove it or mend it") from error

    def _check_inside(self, path: Path) -> None:
        target = path.resolve()
        if not self.is_single_file and not target.is_relative_to(self._bounds):
            raise InputError(
                f"{path} is a link to {target}, outside the folder that is imported",
                hint="copy the file into the folder",
            )


def _bounds(folder: Path) -> Path:
    folder = folder.resolve()
    is_hub_snapshot = folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir()
    return folder.parent.parent if is_hub_snapshot else folder


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"size={status.st_size} mtime={status.st_mtime_ns} inode={status.st_ino}"
