"""Every field of a run is read, says what it is, and agrees with the code that reads it."""

import ast
import dataclasses
import inspect
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from configs import default
from configs.fields import walk
from models import attention
from models import config as model_config
from models.config import ModelConfig
from models.rope import SCALINGS, Rope
from rlp.data.compass import CompassStream
from rlp.engine.optimizer import make_optimizer
from rlp.engine.placement import MEMORIES
from rlp.engine.step import RLPSettings
from rlp.objectives.equations import ADVANTAGES, RATIOS
from rlp.runtime.config_json import fields
from tests.support.paths import ROOT

FIELDS = {field.path: field for field in walk(default.Config)}

# Groups that go whole to something with a parameter or attribute for each of their fields.
HANDED_ON = {
    "model": ModelConfig,
    "model.rope": Rope,
    "rlp": RLPSettings,
    "optimizer": make_optimizer,
    "data.compass": CompassStream,
}


def reads(*folders):
    """Every name and every dotted name, such as `config.rlp.prompt`, that code in folders reads."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
                found.add(dotted(node))
    return found


def dotted(node):
    """The text of a dotted name, with nothing in place of what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.fixture(scope="module")
def read_somewhere():
    """Whether the program reads a field; that a check names it in a string does not count."""
    found = reads("rlp", "models")

    def is_read(field):
        group, _, name = field.rpartition(".")
        if name in inspect.signature(HANDED_ON.get(group, lambda: None)).parameters:
            return any(read == name or read.endswith(f".{name}") for read in found)
        # `lookahead.share`, where a line before says `lookahead = config.data.lookahead`
        owners = [group.rpartition(".")[2]] if group else ["config", "settings"]
        ends = tuple(f"{owner}.{name}" for owner in owners)
        return any(
            read in ends or read.endswith(tuple(f".{end}" for end in ends)) for read in found
        )

    return is_read


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_is_read_by_the_program(field, read_somewhere):
    assert read_somewhere(field)


def test_a_field_that_nothing_reads_is_found(read_somewhere):
    for field in ("nonsense", "rlp.nonsense", "evaluation.nonsense", "data.group_size"):
        assert not read_somewhere(field)


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_a_field_says_what_it_is(path):
    field = FIELDS[path]
    assert type(field.default) is field.kind
    assert len(field.help) >= 5
    assert field.problem(field.default) == ""
    assert "\n" not in field.described()


def test_every_group_says_what_it_holds():
    groups = [kind for kind in vars(default).values() if dataclasses.is_dataclass(kind)]
    assert len(groups) > 10
    assert all(kind.__doc__ and not kind.__doc__.startswith(kind.__name__) for kind in groups)


def test_symbols_of_the_papers_belong_to_their_fields():
    symbols = {
        "batch_size": "B",
        "model.vocab_size": "V",
        "model.hidden_size": "D",
        "data.sequence_length": "T",
        "data.problems.response_length": "L",
        "rlp.group_size": "G",
        "rlp.forks_per_document": "K",
        "rlp.thought_length": "L",
        "rlp.horizon": "H",
        "rlp.ema_decay": "tau",
        "rlp.clip_low": "epsilon_l",
        "rlp.clip_high": "epsilon_h",
        "rlp.clip_dual": "c",
        "rlp.baseline": "phi",
        "rlp.kl_weight": "beta",
        "rlp.target_weight": "lambda",
        "rlp.next_token_weight": "lambda",
        "rlp.planning_weight": "alpha",
    }
    assert {path: field.symbol for path, field in FIELDS.items() if field.symbol} == symbols


def test_the_config_that_files_change_has_the_declared_defaults():
    config = default.get_config()
    assert isinstance(config, ConfigDict)
    assert dict(fields(config)) == {path: field.default for path, field in FIELDS.items()}
    assert default.Config.of(config) == default.Config()


def test_settings_of_a_config_have_its_values():
    config = default.get_config()
    config.rlp.group_size, config.model.rope.theta, config.data.problems.think = 3, 2.0, False
    settings = default.Config.of(config)
    assert settings.rlp.group_size == 3
    assert settings.model.rope.theta == 2.0
    assert settings.data.problems.think is False
    assert settings.seed == 0


def test_mypy_finds_a_misspelt_setting(tmp_path):
    (tmp_path / "reader.py").write_text(
        "from configs import default\n"
        "settings = default.Config.of({})\n"
        "fine: int = settings.rlp.group_size\n"
        "wrong: int = settings.rlp.gruop_size\n"
        "text: int = settings.data.train\n"
    )
    shown = mypy(tmp_path / "reader.py")
    assert "reader.py:4: error: " in shown
    assert 'has no attribute "gruop_size"; maybe "group_size"?' in shown
    assert "reader.py:5: error: Incompatible types" in shown
    assert shown.count("reader.py:") == 2


def mypy(file):
    """What mypy prints of a file, with the settings of the project."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout


# What code declares, too.

CHOICES = {
    "model.activation": model_config.ACTIVATIONS,
    "model.norm": model_config.NORMS,
    "model.qk_norm": model_config.QK_NORMS,
    "model.compute_dtype": model_config.COMPUTE_DTYPES,
    "model.remat": model_config.REMAT_POLICIES,
    "model.attention": attention.IMPLEMENTATIONS,
    "model.rope.scaling": SCALINGS,
    "rlp.advantages": ADVANTAGES,
    "rlp.ratio": RATIOS,
    "rlp.baseline_memory": MEMORIES,
}


@pytest.mark.parametrize("path", CHOICES)
def test_the_choices_of_a_field_are_those_that_the_code_has(path):
    assert set(FIELDS[path].choices) == set(CHOICES[path])


def test_the_network_and_the_optimizer_take_the_fields_of_their_groups():
    """With their types, and the same defaults where both have some."""
    declared = {field.name: field for field in dataclasses.fields(ModelConfig)}
    assert set(declared) == {field.name for field in dataclasses.fields(default.Model)}
    for ours in dataclasses.fields(default.Model):
        theirs = declared[ours.name]
        if ours.name not in ("rope", "attention"):  # a class of its own; None for ""
            assert theirs.type is ours.type, ours.name
            assert theirs.default in (ours.default, dataclasses.MISSING), ours.name
    rope = lambda kind: [(f.name, f.type, f.default) for f in dataclasses.fields(kind)]
    assert rope(default.Rope) == rope(Rope)
    taken = inspect.signature(make_optimizer).parameters
    for field in dataclasses.fields(default.Optimizer):
        assert taken[field.name].annotation is field.type, field.name


def test_the_stages_of_a_step_get_the_fields_of_the_method():
    """All of the group `rlp`; its prompt as token ids, its schedule as numbers."""
    ours = {field.name: field.type for field in dataclasses.fields(default.RLP)}
    stages = {field.name: field.type for field in dataclasses.fields(RLPSettings)}
    assert set(stages) - set(ours) == {"objective", "options", "bos"}
    resolved = {"prompt", "thought_length_schedule"}
    assert {name for name in ours if stages[name] is not ours[name]} == resolved
