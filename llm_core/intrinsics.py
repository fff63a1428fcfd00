"""Six things that compiled loops need and Python has no word for, in the compiler's own terms.

Each is a few instructions of LLVM, the compiler beneath numba, put where a compiled function calls
it: an address becomes a pointer, memory is asked for ahead of time, threads count and read a common
number, vectors get wide, a thread gives way. ``kernels`` uses them. To see whether a function has
changed, numba looks only at the function's own file: after a change here, save kernels.py anew.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer(context: Any, address: Any) -> Any:
    """An address (int64) as something that ``numba.carray`` makes an array of."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


def _prefetch(context: Any, address: Any) -> Any:
    """Ask for the 64 bytes around an address, which need not be memory of ours."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        insert: Any = cgutils.get_or_insert_function
        function = insert(builder.module, kind, "llvm.prefetch.p0")
        for_reading, near, data = number(0), number(3), number(1)
        place = builder.inttoptr(arguments[0], byte)
        builder.call(function, [place, for_reading, near, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _add_atomically(context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address so that no other thread comes between; what was there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


def _read_atomically(context: Any, address: Any) -> Any:
    """The int64 at an address as the other threads last left it, with all they wrote before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.int64), generate


def _wide_vectors(context: Any) -> Any:
    """Let the calling function use vectors as wide as the processor has.

    The compiler prefers 256 bits on processors with 512, which once lowered their clock. For the
    loops of ``kernels`` the whole width is faster. Other processors have no such preference.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite refuses attributes that it does not know; as a plain set it takes them.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


pointer: Any = intrinsic(_pointer)
prefetch: Any = intrinsic(_prefetch)
add_atomically: Any = intrinsic(_add_atomically)
read_atomically: Any = intrinsic(_read_atomically)
wide_vectors: Any = intrinsic(_wide_vectors)

# Lets another thread have the core: a call of the operating system, not an instruction.
give_way: Any = types.ExternalFunction("sched_yield", types.int32())
