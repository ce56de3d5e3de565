"""Code objects: those inside a function, and the names that the bodies of its classes read from the module."""

from __future__ import annotations

import dis
import heapq
from collections.abc import Iterator, Mapping
from types import CodeType

__all__ = ["class_body_names", "nested_codes"]

_LOADS = ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""Instructions that look for a name in the class first, and then in the module."""
_SET_BY_PYTHON = frozenset({"__annotations__", "__module__", "__name__", "__qualname__"})
"""Names that each class body has."""
_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})
"""Operation codes of jumps."""
_ENDS = frozenset(
    {
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
        "JUMP_FORWARD",
        "RAISE_VARARGS",
        "RERAISE",
        "RETURN_CONST",
        "RETURN_VALUE",
    }
)
"""Instructions that the next one never follows."""


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function, and that of the functions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested_codes(constant)


def class_body_names(code: CodeType) -> list[str]:
    """Return the names that the bodies of classes inside a function may read before they assign them.

    Python looks for such a name in the module, by other instructions than those of functions.
    """
    found: dict[str, None] = {}
    for each in nested_codes(code):
        instructions = list(dis.get_instructions(each))
        loads = [number for number, instruction in enumerate(instructions) if instruction.opname in _LOADS]
        assigned = _assigned_before(instructions, _handlers(each)) if loads else {}
        for number in loads:
            name = instructions[number].argval
            if name not in assigned.get(number, _SET_BY_PYTHON):
                found[name] = None
    return list(found)


def _handlers(code: CodeType) -> list[tuple[range, int]]:
    """Return the ranges of instructions whose exceptions are handled, and where. All are offsets."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]  # it is not documented
    return [(range(entry.start, entry.end), entry.target) for entry in entries]


def _assigned_before(
    instructions: list[dis.Instruction], handlers: list[tuple[range, int]]
) -> Mapping[int, frozenset[str]]:
    """Return the names that are assigned before an instruction on each way to it, by the instruction's number."""
    numbers = {instruction.offset: number for number, instruction in enumerate(instructions)}
    before = {0: _SET_BY_PYTHON}
    waiting = [0]
    while waiting:
        number = heapq.heappop(waiting)  # in the order of the code, most instructions are looked at once
        instruction = instructions[number]
        after = _assigned_after(instruction, before[number])
        following = [(numbers[target], before[number]) for handled, target in handlers if instruction.offset in handled]
        if instruction.opname not in _ENDS:
            following.append((number + 1, after))
        if instruction.opcode in _JUMPS:
            following.append((numbers[instruction.argval], after))
        for each, assigned in following:
            known = before.get(each)
            joined = assigned if known is None else known & assigned
            if joined != known:
                before[each] = joined
                if each not in waiting:
                    heapq.heappush(waiting, each)
    return before


def _assigned_after(instruction: dis.Instruction, before: frozenset[str]) -> frozenset[str]:
    """Return the names that are assigned after an instruction, from those before it."""
    if instruction.opname == "STORE_NAME":
        return before | {instruction.argval}
    if instruction.opname == "DELETE_NAME":
        return before - {instruction.argval}
    return before
