"""The collectives of a compiled program, parsed from its HLO text.

Sent bytes are those of ring algorithms, the minimum: on n devices, a device sends (n - 1) / n of
the output of an all-gather, of the input of a reduce-scatter or of an all-to-all, and twice that
for an all-reduce.

A collective in a loop is counted once per iteration. The trip count is an attribute of the loop if
XLA knows it; otherwise, in programs for TPUs, the condition compares a counter with a constant. A
loop whose trip count depends on data is a decode loop. Decoding has several, with fewer and fewer
branches, which share its steps. All steps are counted for the first one, which has all branches.
"""

import dataclasses
import functools
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
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LISTED_GROUPS = re.compile(r"replica_groups=\{(\{[\d,{}]*\})?\}")
_IOTA_GROUPS = re.compile(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}")
_IOTA_IDS = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_AXIS = re.compile(r"'([^']+)'(?:=(\d+)|:\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective of a program.

    Attributes:
      kind: one of `KINDS`.
      groups: replica groups, [groups, devices per group], int.
      count: number of runs.
      sent: bytes that a device sends in all runs.
    """

    kind: str
    groups: np.ndarray
    count: int
    sent: float

    def crosses(self, node: Callable[[int], int]) -> bool:
        """Return whether the devices of a group are on different nodes."""
        return any(len({node(int(device)) for device in group}) > 1 for group in self.groups)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes


_Computations = dict[str, list[_Instruction]]


def collectives(text: str, devices: int, steps: int = 1) -> list[Collective]:
    """Return the collectives of a program.

    Args:
      text: HLO text of the compiled (scheduled) program.
      devices: number of devices.
      steps: of the decode loop.

    Raises:
      ValueError: If the text has an unknown form.
    """
    computations, entry = _parse(text)
    decode_steps = itertools.chain([steps], itertools.repeat(0))
    return list(_of_computation(computations, devices, decode_steps, False, entry))


def _parse(text: str) -> tuple[_Computations, str]:
    computations: _Computations = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (match := _ASSIGNMENT.match(line)):
            shape, after = _type(line[match.end() :])
            opcode, _, rest = after.partition("(")
            current.append(_Instruction(match[1], shape, opcode, rest))
    if not entry:
        raise ValueError("the HLO text has no ENTRY computation")
    return computations, entry


def _type(text: str) -> tuple[str, str]:
    """Split a text into the type at its start, and the rest."""
    if not text.startswith("("):
        shape, _, after = text.partition(" ")
        return shape, after
    depth = 0
    for position, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return text[: position + 1], text[position + 2 :]
    raise ValueError(f"unbalanced parentheses in an HLO type: {text[:80]}")


def _of_computation(
    computations: _Computations,
    devices: int,
    decode_steps: Iterator[int],
    is_start: bool,
    name: str,
) -> Iterator[Collective]:
    """Yield the collectives of a computation and of those that it calls.

    In programs for TPUs, an all-gather that overlaps with other work is in every fusion of that
    work, with the same `chain_id`. Only the one in an `async-collective-start` is counted, for
    which `is_start` is set.
    """
    for instruction in computations[name]:
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            if is_start or "chain_id=" not in instruction.rest:
                yield from _collective(instruction, kind, name, devices)
            continue
        trips = 1
        if instruction.opcode == "while":
            known = _trip_count(computations, name, instruction)
            trips = next(decode_steps) if known is None else known
        starts = instruction.name.startswith("async-collective-start")
        inner = functools.partial(_of_computation, computations, devices, decode_steps, starts)
        for called in _CALLED.findall(instruction.rest):
            yield from (_times(collective, trips) for collective in inner(called))
        if branches := _branches(instruction.rest):
            alternatives = [list(inner(called)) for called in branches]
            yield from max(alternatives, key=lambda some: sum(each.sent for each in some))


def _times(collective: Collective, trips: int) -> Collective:
    count, sent = collective.count * trips, collective.sent * trips
    return dataclasses.replace(collective, count=count, sent=sent)


def _branches(rest: str) -> list[str]:
    names = [listed or one for listed, one in _BRANCHES.findall(rest)]
    return [name.strip().lstrip("%") for several in names for name in several.split(",")]


def _collective(
    instruction: _Instruction, kind: str, computation: str, devices: int
) -> Iterator[Collective]:
    size = float(_bytes(_result(instruction, kind)))
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # a fusion of XLA:TPU, of whose result each device uses a part
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
    """Return the type of the output of a collective; a `-start` has a tuple (operands, output)."""
    is_start = instruction.opcode.endswith("-start")
    if not is_start or kind == "all-reduce" or not instruction.type.startswith("("):
        return instruction.type
    parts, text = [], instruction.type[1:-1]
    while text:
        text = re.sub(r"^[,\s]*(/\*[^*]*\*/)?\s*", "", text)
        part, rest = _type(text) if text.startswith("(") else _array(text)
        parts.append(part)
        text = rest
    return parts[1]


def _array(text: str) -> tuple[str, str]:
    """Split a text into the array type at its start, and the rest."""
    match = re.match(r"[a-z0-9]+\[[\d,]*\](\{[^}]*\})?", text)
    if not match:
        raise ValueError(f"not an HLO array type: {text[:80]}")
    return match[0], text[match.end() :]


def _bytes(shape: str) -> int:
    """Return the bytes of a type, without padding of its layout."""
    total = 0
    for letters, bits, sizes in _ARRAY.findall(shape):
        width = 8 if letters == "pred" else int(bits or 0)
        total += -(-math.prod(int(size) for size in sizes.split(",") if size) * width // 8)
    return total


def _trip_count(computations: _Computations, name: str, loop: _Instruction) -> int | None:
    """Return the trip count of a loop; None if it depends on data."""
    if known := _TRIP_COUNT.search(loop.rest):
        return int(known[1])
    called = re.search(r"\bcondition=%?([\w.-]+)", loop.rest)
    condition = _by_name(computations[called[1]]) if called else {}
    root = list(condition.values())[-1] if condition else None
    if root is None or root.opcode != "compare" or "direction=LT" not in root.rest:
        return None
    limit = condition.get(_operands(root)[1])
    if limit is not None and limit.opcode == "get-tuple-element":
        index = re.search(r"\bindex=(\d+)", limit.rest)
        caller = _by_name(computations[name])
        start = caller.get(_operands(loop)[0])
        if index is None or start is None or start.opcode != "tuple":
            return None
        limit = caller.get(_operands(start)[int(index[1])])
    if limit is None or limit.opcode != "constant":
        return None
    return int(limit.rest.partition(")")[0])


def _by_name(computation: list[_Instruction]) -> dict[str, _Instruction]:
    return {instruction.name: instruction for instruction in computation}


def _operands(instruction: _Instruction) -> list[str]:
    listed = re.sub(r"/\*[^*]*\*/", "", instruction.rest.partition(")")[0])
    return [operand.split()[-1].lstrip("%") for operand in listed.split(",") if operand.strip()]


def _groups(rest: str, devices: int) -> np.ndarray:
    """Return the replica groups of a collective, [groups, devices per group]."""
    if match := _LISTED_GROUPS.search(rest):
        if not match[1]:
            return np.arange(devices)[None]
        rows = [row.split(",") for row in re.findall(r"\{([\d,]+)\}", match[1])]
        return np.array(rows, int)
    if match := _IOTA_GROUPS.search(rest):
        return _iota(match[2]).reshape([int(size) for size in match[1].split(",")])
    if match := _MESH_AXES.search(rest):
        return _mesh_groups(*match.groups())
    raise ValueError(f"unknown form of replica groups: {rest[:200]}")


def _iota(text: str) -> np.ndarray:
    """Return the numbers of an iota list such as "[2,4]T(1,0)", flattened."""
    match = _IOTA_IDS.fullmatch(text)
    if not match:
        raise ValueError(f"unknown form of a device list: {text}")
    sizes = [int(size) for size in match[1].split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    if match[2]:
        numbers = numbers.transpose([int(axis) for axis in match[2].split(",")])
    return numbers.reshape(-1)


def _mesh_groups(axes: str, order: str | None, together: str) -> np.ndarray:
    """Return the groups along some axes of a mesh, such as "'a'=8,'b'=2" along "'a'".

    'a':(2)4 is the sub-axis of size 4 of axis a that follows a sub-axis of size 2.
    """
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
    dims = [(name, index, size) for name in parts for index, size in enumerate(parts[name])]
    grid = numbers.reshape([size for _, _, size in dims])
    inside = [axis for axis, (name, index, _) in enumerate(dims) if (name, index) in wanted]
    outside = [axis for axis in range(len(dims)) if axis not in inside]
    members = math.prod(dims[axis][2] for axis in inside)
    return grid.transpose(outside + inside).reshape(-1, members)
