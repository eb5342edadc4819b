"""Tasks of lm-evaluation-harness, run as they are on a network of this project.

`harness_model` is a model for its `simple_evaluate`, and `run_harness` calls that. Requires the
package `lm-eval` (`requirements-harness.txt`), which no other part of the project uses.
"""

from rlp.evaluation.harness.run import harness_model, run_harness

__all__ = ["harness_model", "run_harness"]
