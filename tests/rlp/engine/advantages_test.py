"""Credit of thoughts: matching predictions, other positions, noise, and rewards of scores."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.engine import step
from rlp.engine.branches import make_forks
from rlp.engine.sampling import document_keys, noise, other_positions
from rlp.engine.token_bytes import LONGEST, matches, token_table
from rlp.objectives.registry import OBJECTIVES
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from tests.support import naive, tiny

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
PARAMS, PHI = tiny.params(CONFIG, 4), tiny.params(CONFIG, 1)
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)

PIECES = [b"th", b"e", b"the", b" ", b"the ", b"", b"t", b"x" * (LONGEST + 1)]
TH, E, THE, SPACE, THE_SPACE, SPECIAL, T, LONG = range(8)


@pytest.mark.parametrize(
    ("predicted", "target", "right"),
    [
        (TH, [TH, E, SPACE], True),  # the document's own token
        (THE, [TH, E, SPACE], True),  # its first two as one
        (THE_SPACE, [TH, E, SPACE], True),  # all three
        (T, [TH, E, SPACE], False),  # a prefix, but ends inside a token
        (THE_SPACE, [TH, E], False),  # longer than the known text
        (E, [TH, E, SPACE], False),
        (TH, [THE, SPACE, T], False),
        (SPECIAL, [SPECIAL, TH, E], True),  # a token without text matches itself
        (THE, [TH, SPECIAL, E], False),  # no match across a token without text
        (TH, [TH, SPECIAL, E], True),
        (LONG, [LONG, E, E], True),  # too long to compare, but the same token
        (SPECIAL, [LONG, E, E], False),
    ],
)
def test_a_prediction_matches_up_to_the_end_of_a_token(predicted, target, right):
    table = token_table(PIECES, 10)
    target, match = jnp.array(target), jax.jit(matches)
    assert bool(match(jnp.array(predicted), target, jnp.ones(target.shape, bool), table)) is right
    # After the end of the document there is no text, whatever the ids there.
    longer = jnp.append(target, jnp.array([TH, E, SPACE]))
    present = jnp.arange(len(longer)) < len(target)
    assert bool(match(jnp.array(predicted), longer, present, table)) is right


def bpe(folder, kind="bytes"):
    """A tokenizer folder, trained on a few words: byte-level BPE, or pieces with byte fallback."""
    tokenizers = pytest.importorskip("tokenizers")
    decoders, models, pre = tokenizers.decoders, tokenizers.models, tokenizers.pre_tokenizers
    specials = ["<pad>", "<eos>", "<think>", "</think>"]
    text = ["the thin thing then thanks the other ether — naïve café"] * 8
    if kind == "bytes":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=330, special_tokens=specials, initial_alphabet=alphabet
        )
        made.train_from_iterator(text, trainer)
    else:
        words = ["▁the", "▁thin", "th", "in", *"abcdefghijklmnopqrstuvwxyz▁"]
        vocabulary = {word: i for i, word in enumerate(specials + words)}
        vocabulary |= {f"<0x{b:02X}>": len(vocabulary) + b for b in range(256)}
        made = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token=None))
        made.add_special_tokens(specials)
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<pad>"}))
    return FolderTokenizer(str(folder), separator="<eos>")


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_the_bytes_of_tokens_are_those_of_their_text(kind, tmp_path):
    tokenizer = bpe(tmp_path, kind)
    pieces = tokenizer.token_bytes()
    assert len(pieces) == tokenizer.vocab_size
    text = "the thin café" if kind == "bytes" else "th"
    assert b"".join(pieces[i] for i in tokenizer.encode(text)) == text.encode()
    assert not any(pieces[i] for i in (*tokenizer.think_open, tokenizer.eos))
    assert sorted(filter(lambda x: len(x) == 1, pieces))[-1] == b"\xff"
    assert ByteTokenizer().token_bytes()[65:67] == [b"A", b"B"]


def test_every_way_to_cut_a_text_into_bpe_tokens_begins_right(tmp_path):
    """For "thing then" as tokenized: a token matches if and only if its bytes are those of one or
    more of the first tokens."""
    tokenizer = bpe(tmp_path)
    pieces = tokenizer.token_bytes()
    target = tokenizer.encode("thing then")
    assert len(target) >= 2
    table = token_table(pieces, len(pieces) + 3)
    every = jnp.arange(len(pieces) + 3)
    spread = jnp.broadcast_to(jnp.array(target), (len(every), len(target)))
    present = jnp.ones(spread.shape, bool)
    actual = np.flatnonzero(jax.jit(matches)(every, spread, present, table))
    prefixes = {b"".join(pieces[i] for i in target[: n + 1]) for n in range(len(target))}
    expected = [i for i, piece in enumerate(pieces) if piece in prefixes]
    assert actual.tolist() == expected
    # If the text is tokenized as single bytes, the tokenizer's first token still matches.
    single = [pieces.index(bytes([b])) for b in b"thing then"]
    assert matches(jnp.array(target[0]), jnp.array(single), jnp.ones(len(single), bool), table)
    assert len(pieces[target[0]]) > 1


def test_another_place_is_another_one_and_any_of_them():
    """Forks 8 of the first document and 2 of the third have one token after them, fewer than H."""
    length, fork = jnp.array([9, 12, 3]), jnp.array([[2, 8], [10, 1], [1, 2]])
    many = tiny.jit(lambda keys: other_positions(keys, *repeated, 1, 2))
    repeated = jnp.tile(fork, (400, 1)), jnp.tile(length, 400)
    drawn = np.asarray(many(keys(1200))).reshape(400, 3, 2)
    for row, k in np.ndindex(2, 2):
        allowed = set(range(1, int(length[row]) - 1)) - {int(fork[row, k])}
        assert set(drawn[:, row, k].tolist()) == allowed
    assert (drawn[:, 2] == 1).all()  # the only allowed position


def keys(documents):
    return document_keys(KEY, 0, np.arange(documents))


def test_noise_belongs_to_the_thought_and_is_even():
    draw = tiny.jit(noise, static_argnums=(2, 3))
    whole = draw(keys(200), 0, 4, 5)
    assert np.array_equal(draw(keys(200), 2, 2, 5), whole[:, 2:])
    many = np.asarray(whole).ravel()
    assert len(set(many.tolist())) > 0.99 * many.size
    assert np.histogram(many, 10, (0, 1))[0].min() > 0.9 * many.size / 10


@pytest.mark.parametrize("name", ["shuffled_target", "rpt", "other_document"])
def test_a_step_of_an_objective_is_its_reward_of_naive_scores(name):
    """Evidence of every thought, also at another position and in another document, from rows that
    repeat the prefix."""
    settings = dataclasses.replace(tiny.rlp_settings(unclosed="mask"), objective=name)
    method = (CONFIG, settings, WORDS)
    table = token_table([bytes([65 + i]) for i in range(22)], 24)

    @tiny.jit
    def run(params, phi):
        reading = step.read_stage(*method, params, phi, BATCH, KEY, 1)
        rollout = step.rollout_stage(*method, params, reading)
        no_think = step.no_think_stage(*method, params, phi, BATCH, reading)
        actual, scores = step.outcome_of(
            *method, params, reading, rollout, no_think.baseline, 0, table
        )
        return (
            reading,
            rollout,
            actual,
            step.evidence_stage(*method, params, reading, no_think, rollout, 0, table),
        )

    reading, rollout, actual, evidence = run(PARAMS, PHI)
    expected = OBJECTIVES[name].reward(actual)
    np.testing.assert_allclose(evidence.rewards, expected, rtol=1e-6)
    t, group = rollout.thoughts, settings.group_size
    places = {"reasoned": (reading.forks, 0)}
    if "elsewhere" in OBJECTIVES[name].reads:
        length, fork = (BATCH.segment > 0).sum(axis=-1), reading.forks.position
        place = other_positions(reading.keys, fork, length, settings.min_prefix, settings.horizon)
        places["elsewhere"] = make_forks(BATCH, place, settings.horizon), 0
    if "in_another" in OBJECTIVES[name].reads:
        places["in_another"] = reading.forks, 1  # in the previous document
    for leaf, (at, before) in places.items():
        branches = []
        for b, n in np.ndindex(t.length.shape):
            there = b - before
            fork = int(reading.forks.position[there, n // group])
            # The text before the fork, followed by the scored target.
            target = np.asarray(at.target[there, n // group])
            line = [*np.asarray(BATCH.tokens[there, :fork]), *target]
            actions = np.asarray(t.actions[b, n, : t.length[b, n]]).tolist()
            branches.append(naive.Branch([int(x) for x in line], fork, actions, 2))
        rows = naive.write_out(branches, WORDS, settings.thought_length, 30)
        scores = naive.target_logprobs(PARAMS, rows, config=CONFIG, vocabulary=WORDS)
        np.testing.assert_allclose(
            np.ravel(getattr(actual, leaf)), np.asarray(scores).sum(-1), atol=2e-5
        )
