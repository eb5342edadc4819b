"""RLVR in a minute on two CPU cores: the questions of the demo, and whether they are answered right.

    python -m launch.train --config=configs/demo_rlvr.py --workdir=runs/demo_rlvr --config.init_from=runs/demo/base

`base` is the first arm of configs/demo.py. A problem is a document up to its answer; a response is a thought with
the answer after it, `<think> south east … </think> north . <eos>`, and is rewarded for the right one alone.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """The run, with the demo's settings of groups, sampling and optimizer."""
    config = demo.get_config()
    del config.arms
    config.objective = "rlvr"
    config.steps = 40
    config.batch_size = 32
    config.data.problems.response_length = 12  # eight headings, the closing tag, the answer, a full stop, the end
    config.data.problems.verifier = "exact"
    config.evaluation.problems = 256
    return config
