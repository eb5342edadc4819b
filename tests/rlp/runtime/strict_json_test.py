"""All JSON that is written is standard: numbers that are not finite are null, shown as gaps."""

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
    """Read a file with a parser that accepts only standard JSON."""
    return json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{path}: {word}"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_only_numbers_that_are_not_finite_change_and_become_null(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert strict(path) == finite(value)
    expected = json.loads(json.dumps(value), parse_constant=lambda word: None)
    assert finite(value) == expected


@given(VALUES)
def test_json_within_the_bounds_is_read_unchanged(value):
    text = json.dumps(value)
    assert json.dumps(parse(text)) == json.dumps(json.loads(text))


def nested(depth):
    """Return JSON with arrays and objects nested `depth` deep."""
    pairs, inner = depth // 2, "[]" if depth % 2 else "1"
    return '[{"a": ' * pairs + inner + "}]" * pairs


@pytest.mark.parametrize(
    "text",
    [
        *(nested(101), nested(900), nested(100_000), "[" * 100_000),
        *('{"a":' * 100_000 + "1" + "}" * 100_000, "9" * 301, "[-" + "9" * 5000 + "]"),
    ],
)
def test_json_beyond_the_bounds_is_refused(text, tmp_path):
    with pytest.raises(Excessive) as caught:
        parse(text)
    assert len(str(caught.value)) < 100
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="a.json cannot be read"):
        read_object(tmp_path / "a.json")


def test_json_at_the_bounds_is_read():
    for text in (nested(100), "9" * 300, json.dumps({"a": "[" * 1000 + "9" * 1000})):
        assert parse(text) == json.loads(text)


def test_all_untrusted_json_is_read_within_the_bounds():
    """Exceptions are messages between processes of this project, and the output of libraries."""
    messages = {
        "rlp/runtime/strict_json.py",
        "rlp/runtime/hosts.py",
        "rlp/training/checkpoint/store.py",
        "rlp/tokenizers/chat_templates.py",
    }
    libraries = {"rlp/tokenizers/folder_tokenizer.py", "rlp/interop/gguf/tokenizer.py"}
    root = ROOT
    readers = {
        str(path.relative_to(root))
        for package in ("rlp", "launch", "models")
        for path in (root / package).rglob("*.py")
        if re.search(r"json\.loads?\(|JSONDecoder\(", path.read_text())
    }
    assert readers <= messages | libraries


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
def test_a_file_that_is_not_an_object_is_named(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="a.json .*the file is damaged"):
        read_object(path)


# A model whose logits are not finite.


@pytest.fixture(scope="module")
def broken(one_device, tmp_path_factory):  # noqa: F811
    """Run an experiment with one step per arm, on documents and problems, with inf and NaN."""

    def bad(model, key):
        params = init(model, key)
        scale = params["norm"]["scale"]
        return params | {"norm": {"scale": scale.at[0].set(math.inf)}}

    config = runs.config(runs.COMPASS, {"data.problems.evaluation": "compass", "steps": 1})
    rlvr = runs.flat_config(runs.COMPASS_RLVR)
    config.update_from_flattened_dict({k: v for k, v in rlvr.items() if "data.problems." in k})
    config.update_from_flattened_dict({"evaluation.problems": 3, "evaluation.responses": 2})
    config.arms = ConfigDict({"a": {}, "b": {"objective": "rlp"}})
    workdir = tmp_path_factory.mktemp("broken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "init", bad)
        summary = experiment.run(config, workdir)
    return config, workdir, summary


def test_every_metric_of_a_model_without_finite_logits_is_null(broken):
    config, workdir, summary = broken
    assert strict(workdir / "summary.json") == summary
    for arm in ("a", "b"):
        evaluation = strict(workdir / arm / "evaluation.json")
        assert summary[arm] == evaluation
        for name in (*catalogue.names("documents"), *catalogue.names("problems")):
            assert evaluation[name] is None, name
        assert evaluation["flops"] > 0
        for name in ("thoughts.json", "responses.json", "warnings.json"):
            strict(workdir / arm / name)
        (document,) = strict(workdir / arm / "thoughts.json")["documents"]
        assert all(position["baseline_logprob"] is None for position in document["positions"])
    assert experiment.run(config, workdir) == summary


def test_reports_show_such_metrics_as_gaps(broken, tmp_path):
    _, workdir, summary = broken
    sources = report.load_folders([workdir, workdir / "a"])
    report.write_sources(sources, tmp_path / "page.html")
    assert ">0.000<" not in (tmp_path / "page.html").read_text()
    arms = {arm: summary[arm] for arm in summary["arms"]}
    (line,) = [
        line for line in report.terminal_table(arms).splitlines() if "greedy thinking" in line
    ]
    assert line.split()[-2:] == ["-", "-"]
    table = report.markdown_table({arm: [metrics] for arm, metrics in arms.items()}, ["think_loss"])
    assert table.splitlines()[2].split() == ["|", "`a`", "|", "-", "|"]
    report.chain_table(report.arm_stages({"a": "", "b": ""}), arms, {})


def test_a_budget_that_is_null_is_reported(one_device, tmp_path):  # noqa: F811
    (tmp_path / "evaluation.json").write_text('{"seconds_device": null}')
    config = runs.config(runs.COMPASS, {"match": f"{tmp_path}:seconds"})
    with pytest.raises(UserError, match="does not contain seconds_device; run"):
        loop.train(config, tmp_path / "run")
