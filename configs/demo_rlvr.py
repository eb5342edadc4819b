"""RLVR on the questions of the demo, in a minute on two CPU cores.

    python -m launch.train --config=configs/demo_rlvr.py --workdir=runs/demo_rlvr --config.init_from=runs/demo/base

`base` is the first arm of configs/demo.py. A problem is a document up to its answer. A response is a thought
followed by the answer, `<think> south east … </think> north . <eos>`, and is rewarded if the answer is right.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """Return the config, with the groups, sampling and optimizer of the demo."""
    config = demo.get_config()
    del config.arms
    config.objective = "rlvr"
    config.steps = 40
    config.batch_size = 32
    config.data.problems.response_length = 12  # eight headings, the closing tag, the answer, a full stop, the end
    config.data.problems.verifier = "exact"
    config.evaluation.problems = 256
    return config
