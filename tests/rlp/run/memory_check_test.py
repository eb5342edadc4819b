"""Sizes that exceed the memory are refused from the config, at once, naming the field."""

import re
import resource
import time

import pytest

from rlp.capacity.device_memory import DoesNotFit, Limits
from rlp.run import experiment, memory_check
from rlp.run.datasets import dataset
from rlp.runtime.errors import UserError
from tests.support import runs

GIB = 2**30
TEXT = runs.TEXT | {"data.train": "no such file", "batch_size": 8}
RLP = TEXT | {"objective": "rlp"}
COMPASS = runs.COMPASS | {"rlp.prompt": "none", "batch_size": 8}
RLVR = runs.COMPASS_RLVR | {"batch_size": 8}


def limited(device, host=64 * GIB):
    """Return a function that reports this memory for any devices."""
    return lambda _: Limits(device, "a chip", host)


def described(*changes):
    return runs.config(*changes)


ABSURD = {
    "vocabulary": (TEXT, {"model.vocab_size": 2**31 - 1}, "model.vocab_size"),
    "a vocabulary beyond int32": (TEXT, {"model.vocab_size": 10**12}, "model.vocab_size"),
    "width": (TEXT, {"model.hidden_size": 10**9}, "model.hidden_size"),
    "width beyond a float": (TEXT, {"model.hidden_size": 10**400}, "model.hidden_size"),
    "a million layers": (TEXT, {"model.num_layers": 10**6}, "model.num_layers"),
    "layers": (TEXT, {"model.num_layers": 10**12}, "model.num_layers"),
    "heads": (TEXT, {"model.num_heads": 2 * 10**9}, "model.num_heads"),
    "width of a head": (TEXT, {"model.head_dim": 10**9}, "model.head_dim"),
    "feed-forward": (TEXT, {"model.ffn_size": 10**15}, "model.ffn_size"),
    "rows": (TEXT, {"batch_size": 10**9}, "batch_size"),
    "rows beyond int32": (TEXT, {"batch_size": 10**400}, "batch_size"),
    "a row": (TEXT, {"data.sequence_length": 10**9}, "data.sequence_length"),
    "steps": (TEXT, {"steps": 10**400}, "steps"),
    "a group": (RLP, {"rlp.group_size": 10**7}, "rlp.group_size"),
    "a group in batches": (
        RLP,
        {"rlp.group_size": 10**9, "rlp.max_branches_in_flight": 8 * 10**9},
        "rlp.group_size",
    ),
    "documents in batches": (
        RLP,
        {"batch_size": 8 * 10**8, "rlp.max_branches_in_flight": 32, "rlp.update_micro_batch": 0},
        "batch_size",
    ),
    "a thought": (RLP, {"rlp.thought_length": 10**9}, "rlp.thought_length"),
    "forks": (RLP, {"rlp.forks_per_document": 10**9}, "rlp.forks_per_document"),
    "a held-out group": (RLP, {"evaluation.thoughts": 10**9}, "evaluation.thoughts"),
    "held-out forks": (
        RLP,
        {"evaluation.forks_per_document": 10**9},
        "evaluation.forks_per_document",
    ),
    "documents that are made": (COMPASS, {"evaluation.documents": 10**12}, "evaluation.documents"),
    "a response": (
        RLVR,
        {"data.problems.response_length": 10**9},
        "data.problems.response_length",
    ),
    "responses": (RLVR, {"evaluation.responses": 10**9}, "evaluation.responses"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused_before_anything_is_made(name):
    base, change, field = ABSURD[name]
    config = described(base, change)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError) as caught:
        memory_check.build(config)
    assert f"{field}=" in str(caught.value) or f"lower {field} (it is " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def needed(config, size):
    """Return the bytes that a run needs if a device has `size` bytes; 0 if that is enough."""
    try:
        memory_check.build(config, memory=limited(size))
    except DoesNotFit as error:
        match = re.search(r"needs at least ([\d,]+) bytes per device", str(error))
        assert match
        return int(match[1].replace(",", ""))
    return 0


def test_the_state_is_counted_on_each_device_after_sharding():
    large = {"model.hidden_size": 256, "model.ffn_size": 256, "model.vocab_size": 4096}
    whole, split = (needed(described(TEXT, large, {"mesh.fsdp": n}), 1) for n in (1, 8))
    assert 7 < whole / split <= 8


@pytest.mark.parametrize("base", [TEXT, RLP, RLVR], ids=["next_token", "rlp", "rlvr"])
def test_a_run_that_has_what_it_needs_is_built_and_with_a_byte_less_it_is_not(base):
    config, size = described(base), 1
    while more := needed(config, size):
        assert more > size
        size = more
    assert needed(config, size - 1) == size


def test_batches_make_a_rollout_and_an_update_smaller():
    config = described(RLP, {"batch_size": 32, "rlp.group_size": 2**14, "rlp.thought_length": 64})
    memory = limited(400 * 2**20)
    for purpose, field in (
        ("a rollout", "max_branches_in_flight"),
        ("an update", "update_micro_batch"),
    ):
        with pytest.raises(DoesNotFit, match=rf"{purpose} needs .*or set rlp\.{field}"):
            memory_check.build(config, memory=memory)
        config.rlp[field] = 8 * 2**14
    memory_check.build(config, memory=memory)


def test_a_tokenizer_with_far_ids_is_named(monkeypatch):
    class Far(dataset.load_tokenizer("bytes").__class__):
        vocab_size = 10**9

    monkeypatch.setattr(dataset, "load_tokenizer", lambda *_: Far())
    with pytest.raises(
        DoesNotFit, match=r"lower the largest id of the tokenizer \(it is 999999999"
    ):
        memory_check.build(described(TEXT))
    Far.vocab_size = 2**31
    with pytest.raises(
        UserError, match=r"the tokenizer \(data\.tokenizer.* has ids up to 21474836"
    ):
        memory_check.build(described(TEXT))


def test_an_arm_that_does_not_fit_is_refused_before_the_first_runs(tmp_path):
    config = described(COMPASS)
    config.arms = {"small": {}, "large": {"model": {"hidden_size": 10**9}}}
    with pytest.raises(UserError, match=r"arm large: .*lower model\.hidden_size"):
        experiment.run(config, tmp_path / "all")
    assert not (tmp_path / "all").exists()
