"""Decode greedily in a process that compiles with optimization, as for a user.

    python -m tests.support.greedy MODEL TOKENS < prompts.json

Prints, as JSON, the ids of each prompt and the TOKENS ids of its greedy continuation.
"""

import json
import sys

from configs import default
from rlp.evaluation.generation.single import continuation
from rlp.run import opened_model, prompts

if __name__ == "__main__":
    opened = opened_model.open_model(sys.argv[1], default.get_config(), opened_model.one_device())
    results = []
    for prompt in json.load(sys.stdin):
        ids = prompts.prompt_ids(opened, prompt)
        more = continuation(opened.method.model, opened.params, ids, int(sys.argv[2]))
        results.append((ids, list(more)))
    json.dump(results, sys.stdout)
