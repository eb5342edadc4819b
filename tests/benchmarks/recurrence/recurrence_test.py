"""The benchmark of the recurrence: its JSON line."""

import json

import pytest

from benchmarks.recurrence import timing
from benchmarks.step.workload import Workload
from rlp.runtime.errors import UserError

TINY = {
    "docs": 2, "positions": 2, "group": 2, "prefix": 9, "thought": 3, "horizon": 2, "hidden": 16,
    "layers": 3, "heads": 2, "kv_heads": 2, "head_dim": 8, "vocab": 16, "warmup": 1, "steps": 1,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_line_has_the_times_of_all_layers_with_a_recurrence(dtype):
    line = timing.measure(Workload(**TINY, pattern="M*M", dtype=dtype))
    assert line == json.loads(json.dumps(line))
    assert line["recurrent_layers"] == 2
    assert min(line[name] for name in ("forward_s", "gradient_s", "decode_s")) > 0


def test_a_network_without_a_recurrence_is_refused():
    with pytest.raises(UserError, match="--pattern='G'"):
        timing.measure(Workload(**TINY))
