"""Greedy continuations by a process whose code is optimized, as it is for a user.

    python -m tests.support.greedy MODEL TOKENS < prompts.json

writes, for each prompt, its ids and the likeliest TOKENS ids that follow, as JSON.
"""

import json
import sys

import jax

from configs import default
from rlp.evaluation.generation import continuation
from rlp.run import opened_model, prompts

if __name__ == "__main__":
    opened = opened_model.open_model(sys.argv[1], default.get_config(), jax.devices()[0])
    found = []
    for prompt in json.load(sys.stdin):
        ids = prompts.prompt_ids(opened, prompt)
        more = continuation(opened.method.model, opened.params, ids, int(sys.argv[2]))
        found.append((ids, list(more)))
    json.dump(found, sys.stdout)
