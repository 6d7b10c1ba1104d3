"""Is a safetensors file whole? From its header and its length alone; beyond what storage/headers.py checks for readers.

The format wants the tensors to cover the data without holes and without overlap.
"""

from __future__ import annotations

from warpctl.errors import InputError
from warpctl.storage.headers import LENGTH_BYTES, TensorInfo, header_length, parse_header


def header_end(first: bytes, *, size: int, file: str) -> int:
    """Where the data begins, from the file's first 8 bytes; `size` is the file's length in bytes."""
    end = LENGTH_BYTES + header_length(first, file=file)
    if end > size:
        raise _broken(file, f"its header claims {end} bytes, the file has {size}: it was cut")
    return end


def tensors_of(start: bytes, *, size: int, file: str) -> tuple[TensorInfo, ...]:
    """The tensors of a file of `size` bytes that begins with `start` (length field and header), sorted by position.

    Raises `InputError` for a malformed header, holes, overlaps, and a file that was cut or is too long.
    """
    try:
        tensors = parse_header(start[LENGTH_BYTES:], file=file, file_bytes=size)
    except RecursionError as error:
        raise _broken(file, "its header is nested too deeply") from error
    ordered = tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)))
    position = len(start)
    for tensor in ordered:
        if tensor.start != position:
            what = "overlaps the one before it" if tensor.start < position else "leaves a hole before it"
            raise _broken(file, f"tensor {tensor.name} at bytes {tensor.start} to {tensor.end} {what}")
        position = tensor.end
    if position != size:
        raise _broken(file, f"its last tensor ends at byte {position}, the file at byte {size}")
    return ordered


def _broken(file: str, what: str) -> InputError:
    return InputError(f"{file} is not a sound safetensors file: {what}", hint="download or export it again")
