"""What is written is JSON for every reader: what is not a number is null, and is read as a gap."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from models.transformer import init
from rlp import report
from rlp.metrics import catalogue
from rlp.run import experiment, loop, state
from rlp.runtime.atomic_files import write_json
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import Excessive, finite, parse, read_object
from tests.support import runs
from tests.support.paths import ROOT
from tests.support.runs import one_device  # noqa: F401  a fixture


def strict(path):
    """The content of a file, read by a parser that takes nothing but JSON."""
    return json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{path}: {word}"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_only_what_is_not_finite_changes_and_becomes_null(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert strict(path) == finite(value)
    expected = json.loads(json.dumps(value), parse_constant=lambda word: None)
    assert finite(value) == expected


@given(VALUES)
def test_what_is_within_the_bounds_is_read_as_it_is(value):
    text = json.dumps(value)
    assert json.dumps(parse(text)) == json.dumps(json.loads(text))


def nested(depth):
    """Arrays and objects inside of one another."""
    pairs, inner = depth // 2, "[]" if depth % 2 else "1"
    return '[{"a": ' * pairs + inner + "}]" * pairs


@pytest.mark.parametrize(
    "text",
    [
        *(nested(101), nested(900), nested(100_000), "[" * 100_000),
        *('{"a":' * 100_000 + "1" + "}" * 100_000, "9" * 301, "[-" + "9" * 5000 + "]"),
    ],
)
def test_what_is_beyond_the_bounds_is_refused(text, tmp_path):
    with pytest.raises(Excessive) as caught:
        parse(text)
    assert len(str(caught.value)) < 100
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="a.json cannot be read"):
        read_object(tmp_path / "a.json")


def test_what_is_at_the_bounds_is_read():
    for text in (nested(100), "9" * 300, json.dumps({"a": "[" * 1000 + "9" * 1000})):
        assert parse(text) == json.loads(text)


def test_all_json_of_others_goes_through_the_bounds():
    """But for what processes of this project say to one another, and what a library has made."""
    ours = {
        "rlp/runtime/strict_json.py",
        "rlp/runtime/hosts.py",
        "rlp/training/checkpoint/store.py",
        "rlp/tokenizers/chat_templates.py",
    }
    made = {"rlp/tokenizers/folder_tokenizer.py", "rlp/interop/gguf/tokenizer.py"}
    root = ROOT
    found = {
        str(path.relative_to(root))
        for room in ("rlp", "launch", "models")
        for path in (root / room).rglob("*.py")
        if re.search(r"json\.loads?\(|JSONDecoder\(", path.read_text())
    }
    assert found <= ours | made


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
def test_a_file_that_is_not_an_object_is_named(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="a.json .*the file is damaged"):
        read_object(path)


# A network whose logits are not finite.


@pytest.fixture(scope="module")
def broken(one_device, tmp_path_factory):  # noqa: F811
    """An experiment of runs of a step, over documents and problems. Infinity gives NaN, too."""

    def bad(model, key):
        found = init(model, key)
        scale = found["norm"]["scale"]
        return found | {"norm": {"scale": scale.at[0].set(math.inf)}}

    config = runs.config(runs.COMPASS, {"data.problems.evaluation": "compass", "steps": 1})
    given = runs.flat_config(runs.COMPASS_RLVR)
    config.update_from_flattened_dict({k: v for k, v in given.items() if "data.problems." in k})
    config.update_from_flattened_dict({"evaluation.problems": 3, "evaluation.responses": 2})
    config.arms = ConfigDict({"a": {}, "b": {"objective": "rlp"}})
    workdir = tmp_path_factory.mktemp("broken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "init", bad)
        summary = experiment.run(config, workdir)
    return config, workdir, summary


def test_every_figure_of_a_network_that_gives_no_numbers_is_null(broken):
    config, workdir, summary = broken
    assert strict(workdir / "summary.json") == summary
    for arm in ("a", "b"):
        found = strict(workdir / arm / "evaluation.json")
        assert summary[arm] == found
        for name in (*catalogue.names("documents"), *catalogue.names("problems")):
            assert found[name] is None, name
        assert found["flops"] > 0
        for name in ("thoughts.json", "responses.json", "warnings.json"):
            strict(workdir / arm / name)
        (document,) = strict(workdir / arm / "thoughts.json")["documents"]
        assert all(place["baseline_logprob"] is None for place in document["positions"])
    assert experiment.run(config, workdir) == summary


def test_reports_show_such_figures_as_gaps(broken, tmp_path):
    _, workdir, summary = broken
    sources = report.load_folders([workdir, workdir / "a"])
    report.write_sources(sources, tmp_path / "page.html")
    assert ">0.000<" not in (tmp_path / "page.html").read_text()
    arms = {arm: summary[arm] for arm in summary["arms"]}
    (line,) = [
        line for line in report.terminal_table(arms).splitlines() if "greedy thinking" in line
    ]
    assert line.split()[-2:] == ["-", "-"]
    table = report.markdown_table({arm: [found] for arm, found in arms.items()}, ["think_loss"])
    assert table.splitlines()[2].split() == ["|", "`a`", "|", "-", "|"]
    report.chain_table(report.arm_stages({"a": "", "b": ""}), arms, {})


def test_a_budget_that_is_null_is_told(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"seconds_device": null}')
    config = runs.config(runs.COMPASS, {"match": f"{tmp_path}:seconds"})
    with pytest.raises(UserError, match="has no seconds_device; run"):
        loop.train(config, tmp_path / "run")
