"""Build the evaluator of held-out rows from a config."""

from jax.sharding import Mesh

from configs.default import Config
from models.sharding import batch_shards
from rlp.engine.readings import TOKEN_BYTES, needs
from rlp.engine.token_bytes import TokenBytes, token_table
from rlp.evaluation.answer_evaluator import AnswerEvaluator
from rlp.evaluation.answering import Answering
from rlp.evaluation.evaluator import Evaluator
from rlp.run.method import TextMethod


def build_evaluator(
    config: Config, method: TextMethod, answering: Answering | None, mesh: Mesh
) -> Evaluator:
    """Build the evaluator of held-out documents and problems."""
    evaluation, at_once = config.evaluation, _evaluated_at_once(config, batch_shards(mesh))
    answers = None
    if answering is not None:
        answers = AnswerEvaluator(answering, evaluation.responses, at_once, mesh)
    trained = "given" if config.rlp.positions == "given" else "uniform"
    return Evaluator(
        method=method,
        positions=evaluation.positions or trained,
        forks=evaluation.forks_per_document,
        thoughts=evaluation.thoughts,
        batch_size=at_once,
        mesh=mesh,
        table=_table(method),
        answers=answers,
    )


def _table(method: TextMethod) -> TokenBytes | None:
    """Return the bytes of all tokens if the objective compares them, else None."""
    if TOKEN_BYTES not in needs(method.settings.objective):
        return None
    return token_table(method.tokenizer.token_bytes(), method.model.vocab_size)


def _evaluated_at_once(config: Config, shards: int) -> int:
    """Return the number of held-out documents per batch, a multiple of the batch shards."""
    if not config.rlp.max_branches_in_flight:
        return config.batch_size
    branches = config.evaluation.forks_per_document * config.evaluation.thoughts
    per_device = config.rlp.max_branches_in_flight // (branches * shards)
    return min(config.batch_size, max(1, per_device) * shards)
