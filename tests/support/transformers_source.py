"""Find which fields of a config.json the installed transformers reads, by its source or by a run.

`in_source` searches the files of a family and the shared files for reads, by the names of
variables; `in_a_run` records the fields that a model of a family reads while it is loaded, run,
trained and sampled. Neither finds all reads: a field name may be computed, or a branch not taken.
"""

import ast
import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

# The files that language models of our families use, besides those of their family.
SHARED = (
    "cache_utils.py",
    "configuration_utils.py",
    "core_model_loading.py",
    "generation/utils.py",
    "integrations/flash_attention.py",
    "integrations/flex_attention.py",
    "integrations/heterogeneity/configuration_utils.py",
    "integrations/moe.py",
    "integrations/sdpa_attention.py",
    "loss/loss_utils.py",
    "masking_utils.py",
    "modeling_layers.py",
    "modeling_rope_utils.py",
    "modeling_utils.py",
    "models/auto/auto_factory.py",
    "models/auto/configuration_auto.py",
    "quantizers/auto.py",
    "quantizers/base.py",
    "utils/generic.py",
    "utils/output_capturing.py",
)
# Variables with these names are configs, but not of a model.
OTHER_CONFIGS = frozenset(
    ("adapter_config", "cache_config", "compile_config", "deepspeed_config", "distributed_config",
     "fusion_config", "generation_config", "kernel_config", "load_config", "peft_config",
     "quantization_config", "watermarking_config")
)  # fmt: skip
# Internal attributes of config objects, and arguments of their methods.
PLUMBING = frozenset(
    ("AutoConfig", "_heterogeneity_spec", "_post_init_done",
     "allow_global_per_layer_attribute_access", "hf_quantizer",
     "serialize_explicit_per_layer_config")
)  # fmt: skip
# The methods of config classes whose `kwargs` are the remaining fields of config.json.
TAKING = ("__post_init__", "convert_rope_params_to_dict")
ROPE_PARAMETERS = ("rope_parameters", "rope_parameters_dict", "rope_params")


def root() -> Path:
    """Return the folder of the installed transformers."""
    return Path(pytest.importorskip("transformers").__file__).parent


@functools.cache
def config_class(family: str) -> Any:
    """Return the config class of a model_type."""
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    return auto.CONFIG_MAPPING[family]


def is_field(family: str, name: str) -> bool:
    """Whether a config.json can set this attribute of a config object, that is, it is not a method,
    a class constant, or a generation setting, which the class removes."""
    generation = pytest.importorskip("transformers").GenerationConfig
    cls = config_class(family)
    if name in {field.name for field in dataclasses.fields(cls)}:
        return True
    defaults = generation._get_default_generation_params()
    if name in defaults or name in PLUMBING or name.startswith("__"):
        return False
    value = getattr(cls, name, None)
    if isinstance(value, property):
        return value.fset is not None
    return not any(hasattr(owner, name) for owner in (cls, dict, property))


@functools.cache
def in_source(family: str) -> frozenset[str]:
    """Return the fields that the source reads for a family."""
    folder = Path("models") / family.removesuffix("_text")
    names: set[str] = set()
    for path in (
        *SHARED,
        *(folder / f"{kind}_{folder.name}.py" for kind in ("configuration", "modeling")),
    ):
        names |= _reads(root() / path)
    names |= {field.name for field in dataclasses.fields(config_class(family))}
    return frozenset(name for name in names if is_field(family, name))


@functools.cache
def rope_parameters() -> frozenset[str]:
    """Return the keys of rope_parameters that the shared code reads."""
    keys: set[str] = set()
    for node in ast.walk(_tree(root() / "modeling_rope_utils.py")):
        for receiver, name in _lookups(node):
            if _last_name(receiver) in ROPE_PARAMETERS:
                keys.add(name)
    return frozenset(keys)


@contextlib.contextmanager
def in_a_run(family: str) -> Iterator[set[str]]:
    """Record the fields that are read from config objects inside the context."""
    transformers = pytest.importorskip("transformers")
    seen: set[str] = set()
    plain = transformers.PreTrainedConfig.__getattribute__

    def spy(self: Any, name: str) -> Any:
        seen.add(name)
        return plain(self, name)

    fields: set[str] = set()
    with mock.patch.object(transformers.PreTrainedConfig, "__getattribute__", spy):
        yield fields
    fields |= {name for name in seen if is_field(family, name)}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _reads(path: Path) -> frozenset[str]:
    """Return the names that a file reads from config objects, also inside config classes."""
    tree = _tree(path)
    names = {name for node in ast.walk(tree) for x, name in _lookups(node) if _is_config(x)}
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        if cls.name.endswith(("Config", "ConfigMixin")):
            for method in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
                receivers = ("self", "kwargs") if method.name in TAKING else ("self",)
                lookups = (pair for node in ast.walk(method) for pair in _lookups(node))
                names |= {name for x, name in lookups if _last_name(x) in receivers}
    return frozenset(names)


def _lookups(node: ast.AST) -> Iterable[tuple[ast.AST, str]]:
    """Yield (x, name) if the node is x.name, getattr(x, "name"), x["name"], x.get("name"),
    x.pop("name") or "name" in x."""
    match node:
        case ast.Attribute(value=x, attr=name, ctx=ast.Load()):
            yield x, name
        case ast.Call(
            func=ast.Name(id="getattr" | "hasattr"), args=[x, ast.Constant(value=str(name)), *_]
        ):
            yield x, name
        case ast.Call(
            func=ast.Attribute(value=x, attr="get" | "pop" | "setdefault"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield x, name
        case ast.Subscript(value=x, slice=ast.Constant(value=str(name))):
            yield x, name
        case ast.Compare(
            left=ast.Constant(value=str(name)), ops=[ast.In() | ast.NotIn()], comparators=[x]
        ):
            yield x, name


def _last_name(node: ast.AST) -> str:
    """Return `c` for `a.b.c` and for `a.b.c[0]`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _last_name(value)
        case ast.Call(func=ast.Attribute(attr="get_text_config")):
            return "config"
    return ""


def _is_config(node: ast.AST) -> bool:
    name = _last_name(node)
    is_config = name in ("config", "config_dict") or name.endswith("_config")
    return is_config and name not in OTHER_CONFIGS
