"""Print a config as an equivalent config file that documents every field."""

from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from configs import default
from configs.fields import Field, walk
from rlp.runtime.config_json import Value, fields
from rlp.runtime.display import printable

_DECLARED = {field.path: field for field in walk(default.Config)}


def config_text(config: ConfigDict, source: str) -> str:
    """Return a config file that makes the same config, with one line per field.

    A comment shows the default of a field that differs from it, as in `# [default: 16]`; for a
    field that an arm changes, it shows the shared value.

    Args:
      config: The config of a run or an experiment.
      source: What made it, such as "configs/text.py:rlp".
    """
    values = dict(fields(config))
    shared = {path: value for path, value in values.items() if not path.startswith("arms.")}
    lines = [
        f"# The config made by {printable(source)}.",
        "",
        "from ml_collections import ConfigDict",
        "",
    ]
    lines += ["from configs import default", "", "", "def get_config():"]
    lines += ["    config = default.get_config()", *_shared(shared)]
    if "arms" in config:
        lines += ["", "    config.arms = ConfigDict(sort_keys=False)"]
        lines += [line for name, arm in config.arms.items() for line in _arm(name, arm, shared)]
    return "\n".join([*lines, "    return config"])


def _shared(values: Mapping[str, Value]) -> Iterator[str]:
    """Yield the lines of all fields in the order of declaration, with a paragraph per group."""
    previous = None
    for path, declared in _DECLARED.items():
        if (group := path.rpartition(".")[0]) != previous:
            previous = group
            yield f"\n    # {declared.group}" if group else ""
        yield _line("config", path, values[path], declared, "default", declared.default)
    yield from _added("config", {p: value for p, value in values.items() if p not in _DECLARED}, {})


def _arm(name: str, arm: ConfigDict, shared: Mapping[str, Value]) -> Iterator[str]:
    """Yield the lines of the fields that an arm changes."""
    parent = f"config.arms.{name}" if name.isidentifier() else f"config.arms[{name!r}]"
    yield f"\n    {parent} = ConfigDict()"
    yield from _added(parent, dict(fields(arm)), shared)


def _added(parent: str, values: Mapping[str, Value], shared: Mapping[str, Value]) -> Iterator[str]:
    """Yield the lines that add fields, and the groups that contain them, to `parent`."""
    created: set[str] = set()
    for path, value in values.items():
        names = path.split(".")[:-1]
        groups = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
        yield from (f"    {parent}.{g} = ConfigDict()" for g in groups if g not in created)
        created.update(groups)
        yield _line(parent, path, value, _DECLARED.get(path), "shared", shared.get(path))


def _line(
    parent: str, path: str, value: Value, declared: Field | None, name: str, other: Value | None
) -> str:
    """Return an assignment with a comment; `other` is the replaced value, labeled `name`."""
    changed = "" if other is None or value == other else f"[{name}: {other!r}] "
    comment = changed + (declared.described() if declared else "")
    return f"    {parent}.{path} = {value!r}" + (f"  # {comment}" if comment else "")
