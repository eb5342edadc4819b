"""Config fields on which the tests of runs build."""

from configs import default
from rlp.runtime.config_json import fields
from tests.support import runs

KNOWN = dict(fields(default.get_config()))
COMPASS_DATA = runs.COMPASS | {"rlp.prompt": "none"}
RLP = {"objective": "rlp"}
LONE = RLP | {"rlp.group_size": 1, "rlp.baseline": "none"}
PAIRS = {
    "data.sft.train": "a.jsonl",
    "data.sft.share": 0.5,
    "data.sft.prompt_column": "q",
    "data.sft.response_column": "a",
}
RLVR = {
    "objective": "rlvr",
    "data.train": "",
    "data.problems.train": "a.jsonl",
    "data.problems.response_length": 8,
}
