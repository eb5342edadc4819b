"""The collectives of a compiled program, read from its text.

Bytes are those that a device sends if every collective goes around a ring, the least that any way
takes: of n devices, (n - 1) / n of what an all-gather gives, of what a reduce-scatter takes or an
all-to-all moves, and twice that for an all-reduce.

A program names a collective once, however often the loop around it runs. The number of turns stands
in the loop (XLA writes it where it knows it; a TPU's program compares a counter with a constant). A
loop whose end depends on data is a decode loop, one of several that take its steps in turn, with
fewer and fewer branches: all steps are counted in the first, which has them all.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$")
_ASSIGNMENT = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = ")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(
    r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.-]+))"
)
_ARRAY = re.compile(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")
_KNOWN_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})?\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}")
_IOTA_IDS = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_AXIS = re.compile(r"'([^']+)'(?:=(\d+)|:\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective between one set of groups of devices, over a whole program.

    Attributes:
      kind: one of `KINDS`.
      groups: devices that take part together, [groups, devices of each].
      count: how often it runs.
      sent: bytes that a device sends, all times together.
    """

    kind: str
    groups: np.ndarray
    count: int
    sent: float

    def crosses(self, node: Callable[[int], int]) -> bool:
        """Whether devices of a group are on different nodes."""
        return any(len({node(int(device)) for device in group}) > 1 for group in self.groups)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes


_Computations = dict[str, list[_Instruction]]


def collectives(text: str, devices: int, steps: int = 1) -> list[Collective]:
    """The collectives of a program.

    Args:
      text: of the compiled program, with its schedule.
      devices: that it runs on.
      steps: of the decode loop.

    Raises:
      ValueError: the text has a form that is not known.
    """
    computations, entry = _parse(text)
    dynamic = itertools.chain([steps], itertools.repeat(0))
    return list(_of(computations, entry, devices, dynamic, awaited=False))


def _parse(text: str) -> tuple[_Computations, str]:
    computations: _Computations = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (found := _ASSIGNMENT.match(line)):
            kind, after = _type(line[found.end() :])
            opcode, _, rest = after.partition("(")
            current.append(_Instruction(found[1], kind, opcode, rest))
    if not entry:
        raise ValueError("the text of the program has no ENTRY")
    return computations, entry


def _type(text: str) -> tuple[str, str]:
    """The type that a text begins with, and what follows it."""
    if not text.startswith("("):
        kind, _, after = text.partition(" ")
        return kind, after
    depth = 0
    for position, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return text[: position + 1], text[position + 2 :]
    raise ValueError(f"a type without its end: {text[:80]}")


def _of(
    computations: _Computations,
    name: str,
    devices: int,
    dynamic: Iterator[int],
    awaited: bool,
) -> Iterator[Collective]:
    """The collectives of a computation and of those that it calls.

    A TPU's program writes an all-gather that runs beside other work into each part of that work,
    all with a `chain_id`; it counts where the first begins.
    """
    for instruction in computations[name]:
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            if awaited or "chain_id=" not in instruction.rest:
                yield from _collective(instruction, kind, name, devices)
            continue
        turns = 1
        if instruction.opcode == "while":
            known = _turns(computations, name, instruction)
            turns = next(dynamic) if known is None else known
        starts = instruction.name.startswith("async-collective-start")
        inner = lambda called: _of(computations, called, devices, dynamic, starts)  # noqa: B023
        for called in _CALLED.findall(instruction.rest):
            yield from (_times(found, turns) for found in inner(called))
        if branches := _branches(instruction.rest):
            each = [list(inner(called)) for called in branches]
            yield from max(each, key=lambda some: sum(found.sent for found in some))


def _times(found: Collective, turns: int) -> Collective:
    return dataclasses.replace(found, count=found.count * turns, sent=found.sent * turns)


def _branches(rest: str) -> list[str]:
    names = [listed or one for listed, one in _BRANCHES.findall(rest)]
    return [name.strip().lstrip("%") for several in names for name in several.split(",")]


def _collective(
    instruction: _Instruction, kind: str, computation: str, devices: int
) -> Iterator[Collective]:
    size = float(_bytes(_result(instruction, kind)))
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # a TPU's: the sum, of which each device goes on with its part
        size /= _groups(instruction.rest, devices).shape[1]
    if kind in ("collective-permute", "collective-broadcast"):
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.rest.partition("}}")[0] + "}")
        groups = np.array(pairs or [[0, 0]], int)
        yield Collective(kind, groups, 1, size)
        return
    groups = _groups(instruction.rest, devices)
    members = groups.shape[1]
    share = (members - 1) / members
    factor = {"all-reduce": 2 * share, "reduce-scatter": members - 1}.get(kind, share)
    if members > 1:
        yield Collective(kind, groups, 1, size * factor)


def _result(instruction: _Instruction, kind: str) -> str:
    """The type of what a collective gives; one that is only begun has its operands in front."""
    begun = instruction.opcode.endswith("-start")
    if not begun or kind == "all-reduce" or not instruction.type.startswith("("):
        return instruction.type
    parts, text = [], instruction.type[1:-1]
    while text:
        text = re.sub(r"^[,\s]*(/\*[^*]*\*/)?\s*", "", text)
        part, rest = _type(text) if text.startswith("(") else _array(text)
        parts.append(part)
        text = rest
    return parts[1]


def _array(text: str) -> tuple[str, str]:
    """The array type that a text begins with, and what follows it."""
    found = re.match(r"[a-z0-9]+\[[\d,]*\](\{[^}]*\})?", text)
    if not found:
        raise ValueError(f"no type of an array: {text[:80]}")
    return found[0], text[found.end() :]


def _bytes(kind: str) -> int:
    """Bytes of a type; those of its layout's padding are left out."""
    total = 0
    for letters, bits, sizes in _ARRAY.findall(kind):
        width = 8 if letters == "pred" else int(bits or 0)
        total += -(-math.prod(int(size) for size in sizes.split(",") if size) * width // 8)
    return total


def _turns(computations: _Computations, name: str, loop: _Instruction) -> int | None:
    """How often a loop turns; None if that depends on data."""
    if known := _KNOWN_TURNS.search(loop.rest):
        return int(known[1])
    called = re.search(r"\bcondition=%?([\w.-]+)", loop.rest)
    body = {found.name: found for found in computations[called[1]]} if called else {}
    root = list(body.values())[-1] if body else None
    if root is None or root.opcode != "compare" or "direction=LT" not in root.rest:
        return None
    limit = body.get(_operands(root)[1])
    if limit is not None and limit.opcode == "get-tuple-element":
        index = re.search(r"\bindex=(\d+)", limit.rest)
        outside = {found.name: found for found in computations[name]}
        start = outside.get(_operands(loop)[0])
        if index is None or start is None or start.opcode != "tuple":
            return None
        limit = outside.get(_operands(start)[int(index[1])])
    if limit is None or limit.opcode != "constant":
        return None
    return int(limit.rest.partition(")")[0])


def _operands(instruction: _Instruction) -> list[str]:
    listed = re.sub(r"/\*[^*]*\*/", "", instruction.rest.partition(")")[0])
    return [operand.split()[-1].lstrip("%") for operand in listed.split(",") if operand.strip()]


def _groups(rest: str, devices: int) -> np.ndarray:
    """Numbers of the devices that take part together, [groups, devices of each]."""
    if found := _LISTED.search(rest):
        if not found[1]:
            return np.arange(devices)[None]
        rows = [row.split(",") for row in re.findall(r"\{([\d,]+)\}", found[1])]
        return np.array(rows, int)
    if found := _IOTA.search(rest):
        return _iota(found[2]).reshape([int(size) for size in found[1].split(",")])
    if found := _MESH.search(rest):
        return _mesh_groups(*found.groups())
    raise ValueError(f"groups of devices in a form that is not known: {rest[:200]}")


def _iota(text: str) -> np.ndarray:
    """The numbers that "[2,4]T(1,0)" stands for, in their order."""
    found = _IOTA_IDS.fullmatch(text)
    if not found:
        raise ValueError(f"a list of devices in a form that is not known: {text}")
    sizes = [int(size) for size in found[1].split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    if found[2]:
        numbers = numbers.transpose([int(axis) for axis in found[2].split(",")])
    return numbers.reshape(-1)


def _mesh_groups(axes: str, order: str | None, together: str) -> np.ndarray:
    """Groups along some axes of a mesh, such as "'a'=8,'b'=2" along "'a'"; 'a':(2)4 is the part of
    size 4 of axis a that comes after a part of size 2."""
    sizes = {name: int(size) for name, size, _, _ in _AXIS.findall(axes)}
    count = math.prod(sizes.values())
    numbers = _iota(order) if order else np.arange(count)
    parts: dict[str, list[int]] = {name: [size] for name, size in sizes.items()}
    wanted: set[tuple[str, int]] = set()
    for name, _, before, size in _AXIS.findall(together):
        if before:
            rest = sizes[name] // (int(before) * int(size))
            parts[name] = [int(before), int(size), rest]
        wanted.add((name, 1 if before else 0))
    dims = [(name, place, size) for name in parts for place, size in enumerate(parts[name])]
    grid = numbers.reshape([size for _, _, size in dims])
    inside = [axis for axis, (name, place, _) in enumerate(dims) if (name, place) in wanted]
    outside = [axis for axis in range(len(dims)) if axis not in inside]
    members = math.prod(dims[axis][2] for axis in inside)
    return grid.transpose(outside + inside).reshape(-1, members)
