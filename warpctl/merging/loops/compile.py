"""python -m warpctl.merging.loops.compile FILE: the kernels as machine code, for the processor that NUMBA_CPU_NAME names.

A process of its own: numba reads its environment once, and needs 200 MiB that a merge should not. What it writes is an ELF (or
Mach-O) object with two functions, to which compiled_code.py knows the arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

from warpctl.merging.compiled_code import ARGUMENTS
from warpctl.merging.loops.combination import combine
from warpctl.merging.loops.products import inner_products

_KINDS = {"i": "int64", "u": "uint64", "f": "float64"}


def object_code() -> bytes:
    """Both kernels."""
    module = llvm.parse_assembly("")
    for function in (inner_products, combine):
        module.link_in(_module(function))
    triple = llvm.get_process_triple()
    module.triple = triple
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=os.environ["NUMBA_CPU_NAME"], features=os.environ["NUMBA_CPU_FEATURES"], opt=3, jit=True
    )
    return bytes(machine.emit_object(module))


def _module(function: Callable[..., None]) -> Any:
    """The function under its own name, and what it calls, optimised."""
    signature = f"void({', '.join(_KINDS[kind] for kind in ARGUMENTS[function.__name__])})"
    compiled = numba.njit(signature, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    (overload,) = compiled.overloads.values()
    module = llvm.parse_assembly(overload.library.get_llvm_str())
    kernel = module.get_function(overload.fndesc.mangled_name)
    kernel.name, kernel.linkage = function.__name__, "external"
    return module


if __name__ == "__main__":
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    Path(sys.argv[1]).write_bytes(object_code())
