"""Benchmarks that a run evaluates on several devices have the scores of one device."""

import jax
import numpy as np
import pytest

from configs.default import Config
from rlp.evaluation.runner.generation import GenerationTask
from rlp.evaluation.runner.likelihood import LikelihoodTask
from rlp.run import assembly, training_suite
from rlp.run.schedule import build_optimizer
from rlp.run.state import StateMaker
from tests.rlp.run.training_suite_test import suite  # noqa: F401  a fixture
from tests.support import runs

KINDS = {
    "generated": (GenerationTask, {}),
    "options": (LikelihoodTask, {"evaluation.suite_likelihood": True}),
    "options after thoughts": (
        LikelihoodTask,
        {"evaluation.suite_likelihood": True, "evaluation.suite_think": True},
    ),
}
MESH = {"mesh.data": 2, "mesh.fsdp": 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_of_a_mesh_are_those_of_one_device(
    suite,  # noqa: F811
    text,
    kind,
    monkeypatch,
):
    task, fields = KINDS[kind]
    result, found, answered = task.result, [], []
    monkeypatch.setattr(task, "result", lambda *args: answered.append(args[1]) or result(*args))
    for sizes, count in (({}, 1), (MESH, 4)):
        config = runs.config(runs.TEXT, text, suite, fields, sizes)
        settings = Config.of(config)
        parts = assembly.build(settings, None, jax.devices()[:count])
        parts = training_suite.added(parts, config, "run", None)
        states = StateMaker(settings, parts, build_optimizer(settings, 1))
        state = states.initial(states.load_initial_params(), assembly.root_keys(0)[0])
        assert state.params["embedding"].sharding.num_devices == count
        found.append(parts.suite.evaluate(state.params, lambda: None))
    assert found[0] == found[1]
    one, on_mesh = answered
    assert one.keys() == on_mesh.keys()
    for key, record in one.items():
        if task is GenerationTask:
            assert record == on_mesh[key]
        else:
            np.testing.assert_allclose(record["logprobs"], on_mesh[key]["logprobs"], rtol=1e-4)
    assert len({str(record) for record in one.values()}) > 2
