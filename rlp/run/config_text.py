"""A config as text: a config file that makes the same one, with the meaning of every field."""

from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from configs import default
from configs.fields import Field, walk
from rlp.runtime.config_json import Value, fields
from rlp.runtime.display import printable

_DECLARED = {field.path: field for field in walk(default.Config)}


def config_text(config: ConfigDict, source: str) -> str:
    """The config of a run or an experiment as a config file, a line for every field.

    A field that differs from the default is marked with it, as in `# [default: 16]`; one that an
    arm changes, with the value that the arms share.

    Args:
      config: with the fields of a run, and arms if it is an experiment.
      source: what made it, such as "configs/text.py:rlp".
    """
    values = dict(fields(config))
    shared = {path: value for path, value in values.items() if not path.startswith("arms.")}
    lines = [f"# What {printable(source)} makes.", "", "from ml_collections import ConfigDict", ""]
    lines += ["from configs import default", "", "", "def get_config():"]
    lines += ["    config = default.get_config()", *_shared(shared)]
    if "arms" in config:
        lines += ["", "    config.arms = ConfigDict(sort_keys=False)"]
        lines += [line for name, arm in config.arms.items() for line in _arm(name, arm, shared)]
    return "\n".join([*lines, "    return config"])


def _shared(values: Mapping[str, Value]) -> Iterator[str]:
    """The lines of the fields, in the order of their declaration, a paragraph for each group."""
    before = None
    for path, declared in _DECLARED.items():
        if (group := path.rpartition(".")[0]) != before:
            before = group
            yield f"\n    # {declared.group}" if group else ""
        yield _line("config", path, values[path], declared, "default", declared.default)
    yield from _added("config", {p: value for p, value in values.items() if p not in _DECLARED}, {})


def _arm(name: str, arm: ConfigDict, shared: Mapping[str, Value]) -> Iterator[str]:
    """The lines of the fields that an arm changes."""
    place = f"config.arms.{name}" if name.isidentifier() else f"config.arms[{name!r}]"
    yield f"\n    {place} = ConfigDict()"
    yield from _added(place, dict(fields(arm)), shared)


def _added(place: str, values: Mapping[str, Value], shared: Mapping[str, Value]) -> Iterator[str]:
    """The lines of fields that a group does not have yet, and of the groups that hold them."""
    made: set[str] = set()
    for path, value in values.items():
        names = path.split(".")[:-1]
        groups = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
        yield from (f"    {place}.{each} = ConfigDict()" for each in groups if each not in made)
        made.update(groups)
        yield _line(place, path, value, _DECLARED.get(path), "shared", shared.get(path))


def _line(
    place: str, path: str, value: Value, declared: Field | None, name: str, other: Value | None
) -> str:
    """An assignment and what it means; `other` is the value that it changes, called `name`."""
    changed = "" if other is None or value == other else f"[{name}: {other!r}] "
    comment = changed + (declared.described() if declared else "")
    return f"    {place}.{path} = {value!r}" + (f"  # {comment}" if comment else "")
