"""Options score as rows that contain them, with and without thoughts, however they are batched."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from models import hf
from models.sharding import make_mesh, parameter_shardings
from rlp.engine.method import Method
from rlp.evaluation.generation.single import thoughts_after
from rlp.evaluation.options import option_scores
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.questions import OptionScore, Question, mean_over_thoughts
from rlp.evaluation.options.row_batches import doubled, row_batches
from rlp.evaluation.options.text_windows import rolling_windows
from rlp.runtime.errors import UserError
from tests.support import hf as theirs
from tests.support import naive, tiny

CONFIG = tiny.model_config()
WINDOWED = tiny.model_config(
    norm="after", qk_norm="all_heads", layer_pattern="LG", sliding_window=5
)
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
WIDTH = 160  # tokens of a row of the full forward passes
LIMIT = 5  # actions of a thought


def scorer(config=CONFIG, mesh=ONE_DEVICE, words=None, **changes) -> OptionScorer:
    settings = tiny.rlp_settings(prompt=changes.pop("prompt", ()))
    method = Method(config, settings, words or tiny.words(config))
    params = tiny.params(config, 4)
    placed = jax.device_put(params, parameter_shardings(mesh, params))
    return OptionScorer(method, placed, mesh, **changes)


def ids(seed: int, count: int, first: int = 0, stop: int = 22) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(first, stop, count).tolist())


def question(context: int, *options: int) -> Question:
    """Return a question with a context and options of these lengths."""
    return Question(
        ids(context, context), tuple(ids(100 * context + i, n) for i, n in enumerate(options))
    )


# One token each; several tokens; more options than a row has; contexts on both sides of a length.
QUESTIONS = [
    question(3, 1, 1, 1, 1),
    question(60, 3, 5),
    question(64, 1, 8),
    question(1, 2, 1),
    question(7, *[1 + i % 3 for i in range(18)]),
    question(63, 1, 1, 1),
]


def reread(config, row: list[int]) -> np.ndarray:
    """Return log p(· | the first n ids) for all n >= 1, [n, V], without a cache."""
    rows = np.zeros((1, WIDTH), np.int32)
    rows[0, : len(row)] = row
    length = np.array([len(row)])
    found = naive.predictions(tiny.params(config, 4), rows, length, config=config, banned=())
    return np.asarray(found[0, : len(row)])


def by_hand(config, before: tuple[int, ...], option: tuple[int, ...]) -> OptionScore:
    table = reread(config, [*before, *option])[len(before) - 1 : -1]
    logprob = table[np.arange(len(option)), option].sum()
    greedy = bool((table.argmax(axis=-1) == option).all())
    return OptionScore(float(logprob), greedy, len(option))


def assert_same(found: list[OptionScore], expected: list[OptionScore]) -> None:
    assert [x.logprob for x in found] == pytest.approx([x.logprob for x in expected], abs=1e-4)
    strip = lambda scores: [(x.greedy, x.tokens) for x in scores]
    assert strip(found) == strip(expected)


@pytest.mark.parametrize(
    ("config", "questions"),
    [(CONFIG, QUESTIONS), pytest.param(WINDOWED, QUESTIONS[:3], marks=pytest.mark.slow)],
    ids=["plain", "window"],
)
def test_an_option_scores_as_a_row_of_its_own(config, questions):
    for one, found in zip(questions, scorer(config).score(questions), strict=True):
        assert_same(found, [by_hand(config, one.context, option) for option in one.options])


def test_the_likeliest_continuation_is_greedy_and_no_other_is():
    context, best = ids(1, 9), []
    for _ in range(3):
        best.append(int(reread(CONFIG, [*context, *best])[-1].argmax()))
    others = [(*best[:at], (best[at] + 1) % 22, *best[at + 1 :]) for at in range(3)]
    (found,) = scorer().score([Question(context, (tuple(best), *others))])
    assert [x.greedy for x in found] == [True, False, False, False]


def test_no_token_is_banned():
    """The probabilities of all rows of the embedding sum to one."""
    (found,) = scorer().score([Question(ids(1, 9), tuple((i,) for i in range(24)))])
    assert math.fsum(math.exp(x.logprob) for x in found) == pytest.approx(1, abs=1e-5)


def test_scores_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    model = theirs.their_model("qwen3")
    config = hf.read_config(theirs.config_json(model))
    method = Method(config, tiny.rlp_settings(), tiny.words(config))
    ours = OptionScorer(method, theirs.parameters(model, config), ONE_DEVICE)
    for one, found in zip(QUESTIONS[:3], ours.score(QUESTIONS[:3]), strict=True):
        for option, actual in zip(one.options, found, strict=True):
            row = np.array([[*one.context, *option]])
            logits = torch.tensor(theirs.their_logits(model, row)[0, len(one.context) - 1 : -1])
            table = torch.log_softmax(logits, dim=-1).numpy()
            expected = table[np.arange(len(option)), option].sum()
            assert actual.logprob == pytest.approx(float(expected), abs=1e-4)
            assert actual.greedy == bool((table.argmax(axis=-1) == option).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_tokens": 1},  # one row at a time
        {"mesh": make_mesh(2, 2, 2)},
        pytest.param({"mesh": make_mesh(1, 8, 1)}, marks=pytest.mark.slow),
    ],
    ids=["single rows", "2x2x2", "1x8x1"],
)
def test_scores_do_not_depend_on_batches_order_or_mesh(changes):
    expected = scorer().score(QUESTIONS)
    order = np.random.default_rng(0).permutation(len(QUESTIONS))
    found = scorer(**changes).score([QUESTIONS[i] for i in order])
    for i, scores in zip(order, found, strict=True):
        assert_same(scores, expected[i])


def test_questions_are_reported_once_when_all_their_options_are_known():
    seen = {}

    def done(i, scores):
        assert i not in seen
        seen[i] = scores

    found = scorer(batch_tokens=1).score(QUESTIONS, done)
    assert [seen[i] for i in range(len(QUESTIONS))] == found


BAD = {
    "question 1 has no context": Question((), ((1,),)),
    "question 1 has an option without tokens": Question((1,), ((1,), ())),
    "question 1 has no options": Question((1,), ()),
    "question 1 has the id 24, but the embedding has 24 rows": Question((1,), ((3,), (24,))),
    "question 1 has the id -1": Question((1, -1), ((3,),)),
    "question 1 has 41 tokens with its longest option": Question((1,) * 40, ((3,), (3, 3))),
}


@pytest.mark.parametrize("message", BAD)
def test_a_question_that_cannot_be_scored_is_refused_before_anything_runs(message):
    ours = dataclasses.replace(scorer(context=40), params=None)
    with pytest.raises(UserError, match=message):
        ours.score([QUESTIONS[0], BAD[message]])
    with pytest.raises(UserError, match="question 1"):
        ours.score_after_thoughts([QUESTIONS[0], BAD[message]], 2, LIMIT, 1.0, 0)


def test_thoughts_that_cannot_be_sampled_and_texts_that_cannot_be_read_are_refused():
    ours = dataclasses.replace(scorer(context=40), params=None)
    for thoughts, length in ((0, 5), (2, 0)):
        with pytest.raises(UserError, match="it must be at least 1"):
            ours.score_after_thoughts(QUESTIONS[:1], thoughts, length, 1.0, 0)
    with pytest.raises(UserError, match="temperature=-1.0"):
        ours.score_after_thoughts(QUESTIONS[:1], 2, LIMIT, -1.0, 0)
    # The context, the tags, a thought, and the option without its last token.
    with pytest.raises(UserError, match="question 0 has 41 tokens"):
        ours.score_after_thoughts([question(34, 1)], 1, LIMIT, 1.0, 0)
    for text, window, message in (
        ((), 5, "text 1 is empty"),
        ((24,), 5, "text 1 has the id 24"),
        ((3,), 41, "use from 1 to 40"),
    ):
        with pytest.raises(UserError, match=message):
            ours.text_logprobs([(3, 4), text], tiny.BOS, window)


# Thoughts.


@pytest.mark.parametrize(
    ("close", "prompt"),
    [((tiny.CLOSE,), ()), ((9, 12), (14, 5, 16))],
    ids=["plain", "a prompt, tags of two tokens"],
)
def test_an_option_after_a_thought_scores_as_a_row_with_both(close, prompt):
    opening = (tiny.OPEN,) if len(close) == 1 else (17, 9)
    words = tiny.words(CONFIG, think_open=opening, think_close=close)
    seen = {}
    ours = scorer(words=words, prompt=prompt)
    questions = [question(11, 1, 3), question(60, 1, 2)]
    found = ours.score_after_thoughts(questions, 6, LIMIT, 1.0, 7, sampled=seen.__setitem__)
    closed = set()
    for i, one in enumerate(questions):
        assert len(seen[i]) == len(found[i]) == 6
        for thought, scores in zip(seen[i], found[i], strict=True):
            assert not set(thought.words) & set(words.not_in_thoughts)
            closed.add(thought.closed)
            bos, *rest = one.context
            before = (bos, *prompt, *rest, *opening, *thought.words, *close)
            assert_same(scores, [by_hand(CONFIG, before, option) for option in one.options])
    assert closed == {False, True} or prompt


def test_scores_after_thoughts_are_those_of_the_same_thoughts_of_a_prompt(monkeypatch):
    monkeypatch.setattr(option_scores, "_number", lambda context: 0)  # as a prompt is numbered
    words = dataclasses.replace(tiny.words(CONFIG), not_in_documents=())
    ours, one, seen = scorer(words=words), question(11, 2), {}
    (found,) = ours.score_after_thoughts([one], 4, LIMIT, 1.5, 7, sampled=seen.__setitem__)
    settings = tiny.rlp_settings(thought_length=LIMIT, temperature=1.5)
    method, key = Method(CONFIG, settings, words), jax.random.key(7)
    params = tiny.params(CONFIG, 4)
    expected, _ = thoughts_after(method, params, one.context, one.options[0], 4, key)
    assert seen[0] == [dataclasses.replace(thought, reasoned=None) for thought in expected]
    assert len({tuple(thought.words) for thought in expected}) > 1
    reasoned = [thought.reasoned for thought in expected]
    assert [scores[0].logprob for scores in found] == pytest.approx(reasoned, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"batch_tokens": 1}, marks=pytest.mark.slow),
        pytest.param({"mesh": make_mesh(2, 2, 2)}, marks=pytest.mark.slow),
    ],
    ids=["another order", "single rows", "2x2x2"],
)
def test_thoughts_depend_on_the_context_and_the_seed_alone(changes):
    questions = [question(11, 1, 3), question(60, 1, 2), question(30, 2, 8)]

    def run(order, seed=7, **changes):
        seen, chosen = {}, [questions[i] for i in order]
        ours = scorer(**changes)
        found = ours.score_after_thoughts(chosen, 3, LIMIT, 1.5, seed, sampled=seen.__setitem__)
        return {i: (seen[n], found[n]) for n, i in enumerate(order)}

    expected, found = run([0, 1, 2]), run([2, 0, 1], **changes)
    for i, (thoughts, scores) in expected.items():
        assert found[i][0] == thoughts
        for one, other in zip(scores, found[i][1], strict=True):
            assert_same(other, one)
    assert run([0, 1, 2], seed=8)[0][0] != expected[0][0]


def test_the_mean_over_thoughts_is_that_of_probabilities():
    p = np.array([[0.5, 0.25], [0.1, 0.75], [0.3, 0.0]])
    with np.errstate(divide="ignore"):
        scores = [
            [OptionScore(math.log(x) if x else -math.inf, False, 1) for x in row] for row in p
        ]
    found = mean_over_thoughts(scores)
    assert np.exp(found) == pytest.approx(p.mean(axis=0))
    far = [[OptionScore(x, False, 1)] for x in (-5000.0, -5001.0)]  # where probabilities are 0
    assert mean_over_thoughts(far) == pytest.approx([-5000 + math.log((1 + math.exp(-1)) / 2)])


# Texts.


def test_every_token_of_a_text_is_in_one_part_with_all_tokens_before_it_that_fit():
    for length in range(40):
        for window in range(1, 12):
            text, at = list(range(length)), 0
            whole = [-1, *text]
            for part in rolling_windows(text, -1, window):
                assert part.first == at
                at += part.count
                before = len(part.ids) - part.count
                assert (
                    before == 1
                    if part.count == window
                    else len(part.ids) == window + 1 or at <= window
                )
                assert part.ids == whole[at + 1 - len(part.ids) : at + 1]
            assert at == length


def test_tokens_of_texts_score_as_in_their_windows():
    texts, window = [ids(3, 10), ids(4, 1), ids(5, 100), ids(6, 30)], 30
    seen = {}
    found = scorer(context=64).text_logprobs(texts, tiny.BOS, window, seen.__setitem__)
    for i, text in enumerate(texts):
        assert found[i].shape == (len(text),)
        assert seen[i] is found[i]
        for part in rolling_windows(text, tiny.BOS, window):
            table = reread(CONFIG, part.ids)[-part.count - 1 : -1]
            target = text[part.first : part.first + part.count]
            expected = table[np.arange(part.count), target]
            assert found[i][part.first :][: part.count] == pytest.approx(expected, abs=1e-4)
    whole = scorer(context=64).text_logprobs(texts[3:], tiny.BOS)[0]
    table = reread(CONFIG, [tiny.BOS, *texts[3]])[:-1]
    assert whole == pytest.approx(table[np.arange(30), texts[3]], abs=1e-4)


# Batches.


def test_a_doubled_size_is_the_smallest_that_fits():
    for least in (1, 8):
        for size in range(1, 1000):
            found = doubled(size, least)
            assert size <= found
            assert found == least or found < 2 * size
            assert found % least == 0
            assert (found // least).bit_count() == 1


@pytest.mark.parametrize("shards", [1, 3])
def test_rows_are_in_one_batch_each_within_the_limit(shards):
    sizes = np.random.default_rng(0).integers(1, 40, 200).tolist()
    rows = list(enumerate(sizes))
    shape = lambda row: (doubled(row[1]),)
    seen, shapes = [], set()
    for (size,), some, count in row_batches(rows, shape, lambda shape: shape[0], 64, shards):
        assert {shape(row) for row in some} == {(size,)}
        assert count % shards == 0
        assert len(some) <= count
        assert count // shards * size <= 64
        seen += some
        shapes.add((size, count))
    assert sorted(seen) == rows
    assert [shape(row) for row in seen] == sorted(map(shape, rows), reverse=True)
    assert len(shapes) <= 2 * len({shape(row) for row in rows})
