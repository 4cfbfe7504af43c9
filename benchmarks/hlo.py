"""What a compiled loop does with its cache, read from XLA's optimised program (HLO text).

In a loop body a cache that is updated in place is written by `dynamic-update-slice` alone. A `copy` of its
shape, or another operation that makes a whole new array of that shape, is a pass over all of its memory.
"""

import re
from collections import Counter

# `%name = f32[2,3]{1,0} opcode(operands), attributes`; the names' % went out of use in newer versions.
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|\w+_computations?)=(?:%?([\w.-]+)|\{([^}]*)\})")
FREE = {"get-tuple-element", "parameter", "bitcast", "tuple", "constant", "call", "while", "conditional"}
"""Opcodes that move nothing themselves; what is called is looked into."""


def computations(text: str) -> dict[str, list[tuple[bool, str, str, str]]]:
    """Of each computation its instructions: whether it is the root, result type, opcode, the rest."""
    found, current = {}, []
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.-]+) (?:\(.*\) -> .*)?\{$", line)
        if head:
            current = found[head[1]] = []
        elif match := INSTRUCTION.match(line):
            current.append((bool(match[1]), match[3], match[4], match[5]))
    return found


def called(rest: str) -> list[str]:
    """The computations that an instruction's attributes name."""
    names = ",".join(one or several for one, several in CALLED.findall(rest))
    return [name.strip(" %") for name in names.split(",") if name]


def loop_report(text: str, shape: tuple[int, ...]) -> dict:
    """How arrays of the cache's `shape` come into being inside the loops and outside.

    Counted by operation, shape and layout, in any order of the axes: a transposed cache is a whole new one,
    too. A fusion counts as its root's opcode; a loop within a loop, as a part of that one.
    """
    program, wanted = computations(text), sorted(shape)
    everything = [(op, rest) for body in program.values() for *_, op, rest in body]
    fused = {name for op, rest in everything if op == "fusion" for name in called(rest)}
    inside = _reached(program, [name for op, rest in everything if op == "while" for name in called(rest)])
    in_loops, outside = Counter(), Counter()
    for name in program.keys() - fused:
        made = [
            f"{_opcode(program, op, rest)} {kind}"
            for _, kind, op, rest in program[name]
            if op not in FREE and sorted(_dimensions(kind)) == wanted
        ]
        (in_loops if name in inside else outside).update(made)
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", text)
    return {
        "shape": list(shape),
        "loops": sum(op == "while" for op, _ in everything),
        "in_loops": dict(in_loops),
        "outside": dict(outside),
        "whole_new_in_loops": sum(n for op, n in in_loops.items() if "dynamic-update-slice" not in op),
        "aliased_outputs": len(re.findall(r"(?:may|must)-alias", aliases[1])) if aliases else 0,
    }


def _reached(program: dict, names: list[str]) -> set[str]:
    """These computations and all that they call."""
    found, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += [other for *_, rest in program.get(name, []) for other in called(rest)]
    return found


def _dimensions(kind: str) -> tuple[int, ...]:
    """Of a float32 array; nothing else is a cache."""
    match = re.match(r"f32\[([\d,]+)\]", kind)
    return tuple(map(int, match[1].split(","))) if match else ()


def _opcode(program: dict, opcode: str, rest: str) -> str:
    """The opcode; of a fusion, that of its root."""
    if opcode != "fusion":
        return opcode
    roots = [op for root, _, op, _ in program.get(called(rest)[0], []) if root]
    return f"fused {roots[0]}" if roots else opcode
