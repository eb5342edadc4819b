"""A run that runs out of memory says which fields to lower."""

import jax
import pytest

from rlp.run import loop
from rlp.run.out_of_memory import NEXT_TOKEN_FIELDS, THOUGHT_FIELDS
from rlp.runtime.errors import UserError
from tests.support.runs import one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")
XLA = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes.\nBuffer: x"


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (jax.errors.JaxRuntimeError(XLA), "a device is out of memory (RESOURCE_EXHAUSTED: Out of"),
        (MemoryError("Unable to allocate 8 GiB"), "the host is out of memory (Unable to allocate"),
    ],
)
@pytest.mark.parametrize("kind", ["next_token", "rlp"], indirect=True)
def test_one_line_names_the_fields_to_lower(kind, error, where, tmp_path, monkeypatch):
    trainer, _, config = kind

    def step(*_):
        raise error

    monkeypatch.setattr(trainer, "step", step)
    with pytest.raises(UserError) as caught:
        loop.train(config, tmp_path, report=False)
    message = str(caught.value)
    assert message.startswith(where)
    assert len(message.splitlines()) == 1
    assert "python -m launch.compile" in message
    fields = NEXT_TOKEN_FIELDS if config.objective == "next_token" else THOUGHT_FIELDS
    assert all(name in message for name in fields)
    assert f"lower batch_size (it is {config.batch_size})" in message


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_other_errors_of_the_runtime_are_left_alone(kind, tmp_path, monkeypatch):
    trainer, _, config = kind

    def step(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(trainer, "step", step)
    with pytest.raises(jax.errors.JaxRuntimeError):
        loop.train(config, tmp_path, report=False)
