"""Bits per byte and perplexity of a text, without and with thoughts: where do thoughts help?

Without thoughts, every token of the text is scored once (`rlp.data.located_text`). With thoughts,
the H target tokens at each of the chosen positions are scored after S thoughts c_1 … c_S, sampled
from the network before the target is seen, in two ways:

    mean    (1/S) sum_s log p(x | c_s): the expected log-likelihood after one thought
    bound   log (1/S) sum_s p(x | c_s): the network that averages its predictions over S thoughts

Over the sampling of the thoughts, the expectation of the bound is at most log E_c[p(x | c)], the
log-likelihood of the text with the thought marginalised, by Jensen's inequality; it does not fall
with S, and S = 1 is the mean. It is the bound of importance weighted autoencoders (Burda et al.,
arXiv 1509.00519, theorem 1) with the thoughts' own distribution as the proposal, and the objective
of JEPO with several samples (arXiv 2503.19618). The distribution is that of the sampler: its
temperature, its length limit, and a closing tag that is appended to thoughts that do not close. The
estimate is unbiased for the bound of S samples, not for the marginal log-likelihood.

The bound of a target is a sum over its tokens of log p(x_h | x_<h, S thoughts), where the weight of
a thought is what it has predicted so far. These terms are what is reported for classes and buckets
of tokens; only their sums from the first token of a target on are bounds.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.transformer import Params
from rlp.data.located_text import LocatedText, Window, rows_of, windows_of
from rlp.evaluation.measures.counterfactuals import ScoredThoughts
from rlp.evaluation.measures.estimates import Estimate, ratio
from rlp.evaluation.measures.given_thoughts import TextScorer
from rlp.evaluation.measures.token_classes import CLASSES
from rlp.tokenizers.tokenizer import Tokenizer

EDGES = (0.1, 0.5, 2.0, 5.0)  # nats, between the buckets of no-think loss
BUCKETS = ("< 0.1", "0.1 – 0.5", "0.5 – 2", "2 – 5", "≥ 5")
CONTROLS = ("empty", "other")  # replacements whose gains are shown beside those of the thoughts


@dataclasses.dataclass(frozen=True)
class WholeText:
    """A text without thoughts.

    Attributes:
      documents, tokens, bytes: what was scored.
      unscored: tokens that were not: first tokens of documents without a BOS, and those of windows
        with tags.
      bits_per_byte: of the scored tokens and their bytes.
      loss: nats per token.
      perplexity: exp of the loss, which depends on the tokenizer.
    """

    documents: int
    tokens: int
    bytes: int
    unscored: int
    bits_per_byte: Estimate
    loss: Estimate
    perplexity: Estimate


@dataclasses.dataclass(frozen=True)
class Group:
    """Some of the target tokens at the chosen positions.

    Attributes:
      name: of the group.
      tokens, bytes: numbers of them; a token that is in several targets counts several times.
      loss: nats per token, without a thought ("none"), and with thoughts ("mean", "bound").
      bits_per_byte: the same in bits per byte of the tokens.
      gain: nats per token over the loss without a thought, paired, of "mean", "bound" and
        `CONTROLS`.
    """

    name: str
    tokens: int
    bytes: int
    loss: dict[str, Estimate]
    bits_per_byte: dict[str, Estimate]
    gain: dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class TextMeasures:
    """The measures of a network on a text.

    Attributes:
      text: all tokens, without thoughts.
      thoughts: S.
      horizon: H.
      targets: all target tokens at the positions.
      classes: target tokens by `token_classes`.
      buckets: target tokens by their loss without a thought.
    """

    text: WholeText
    thoughts: int
    horizon: int
    targets: Group
    classes: tuple[Group, ...]
    buckets: tuple[Group, ...]


def whole_text(
    scorer: TextScorer,
    params: Params,
    documents: Sequence[LocatedText],
    length: int,
    tokenizer: Tokenizer,
    watch: Callable = iter,
) -> WholeText:
    """Score every token of documents once, without thoughts.

    Args:
      scorer: of the network.
      params: of the network.
      documents: in their order.
      length: T, tokens of a row.
      tokenizer: of the documents.
      watch: wraps the list of batches.
    """
    placed: list[tuple[int, Window]] = [
        (number, window)
        for number, document in enumerate(documents)
        for window in windows_of(document, length, tokenizer)
    ]
    index = np.arange(len(placed), dtype=np.int32)
    windows = [(documents[number], window) for number, window in placed]
    rows = rows_of(windows, np.full((len(placed), 1), -1, np.int32), index, length, tokenizer)
    logprobs = scorer.text(params, rows, watch)
    head = len(tokenizer.bos)
    sizes = [document.bytes_of_tokens() for document in documents]
    nats, counts, bytes_ = (np.zeros(len(placed)) for _ in range(3))
    for row, (number, window) in enumerate(placed):
        first = window.scored or (0 if head else 1)  # without a BOS, nothing predicts the first one
        shift = head - window.start
        nats[row] = -logprobs[row, first + shift : window.end + shift].sum()
        counts[row] = window.end - first
        bytes_[row] = sizes[number][first : window.end].sum()
    owner = np.array([number for number, _ in placed])
    loss = ratio(nats, counts, owner)
    total = sum(len(document.ids) for document in documents)
    return WholeText(
        documents=len(np.unique(owner)),
        tokens=int(counts.sum()),
        bytes=int(bytes_.sum()),
        unscored=total - int(counts.sum()),
        bits_per_byte=ratio(nats / math.log(2), bytes_, owner),
        loss=loss,
        perplexity=loss.exponential(),
    )


def measure(
    text: WholeText,
    scored: ScoredThoughts,
    classes: Sequence[np.ndarray],
    sizes: Sequence[np.ndarray],
) -> TextMeasures:
    """Return the measures of a network.

    Args:
      text: the whole text, without thoughts.
      scored: thoughts at positions of the text.
      classes: of the tokens of every document, indices of `token_classes.CLASSES`.
      sizes: bytes of the tokens of every document.
    """
    horizon, present = scored.target.shape[1], scored.target >= 0

    def of_targets(arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values of the target tokens [P, H], given those of all documents."""
        values = np.zeros(present.shape, np.asarray(arrays[0]).dtype)
        where = zip(values, present, scored.document, scored.position, strict=True)
        for row, inside, number, start in where:
            row[inside] = arrays[number][start : start + inside.sum()]
        return values

    kinds, size = of_targets(classes), of_targets(sizes)
    bucket = np.digitize(-scored.without, EDGES)
    group = lambda name, chosen: _group(name, scored, size, chosen & present)
    return TextMeasures(
        text=text,
        thoughts=scored.after.shape[1],
        horizon=horizon,
        targets=group("all", present),
        classes=tuple(group(name, kinds == i) for i, name in enumerate(CLASSES)),
        buckets=tuple(group(name, bucket == i) for i, name in enumerate(BUCKETS)),
    )


def bound_terms(after: np.ndarray) -> np.ndarray:
    """Return log p(x_h | x_<h, S thoughts) of every target token, whose sum over a target is
    log (1/S) sum_s p(x | c_s).

    Args:
      after: [..., S, H] nats, log p(x_h | x_<h, c_s).

    Returns:
      [..., H] nats.
    """
    sums = np.cumsum(after, axis=-1)
    bounds = np.logaddexp.reduce(sums, axis=-2) - math.log(after.shape[-2])
    return np.diff(bounds, axis=-1, prepend=0.0)


def _group(name: str, scored: ScoredThoughts, size: np.ndarray, chosen: np.ndarray) -> Group:
    """Return the measures of the target tokens for which `chosen` [P, H] is true."""
    documents = np.broadcast_to(scored.document[:, None], chosen.shape)[chosen]
    size = size[chosen]
    after = scored.after.astype(np.float64)
    logprobs = {
        "none": scored.without.astype(np.float64),
        "mean": after.mean(axis=1),
        "bound": bound_terms(after),
        **{control: scored.replaced[control].mean(axis=1) for control in CONTROLS},
    }
    picked = {key: values[chosen] for key, values in logprobs.items()}
    ones, shown = np.ones(len(size)), ("none", "mean", "bound")
    bits = {key: -picked[key] / math.log(2) for key in shown}
    return Group(
        name=name,
        tokens=len(size),
        bytes=int(size.sum()),
        loss={key: ratio(-picked[key], ones, documents) for key in shown},
        bits_per_byte={key: ratio(bits[key], size, documents) for key in shown},
        gain={
            key: ratio(picked[key] - picked["none"], ones, documents)
            for key in ("mean", "bound", *CONTROLS)
        },
    )


def text_rows(measured: Mapping[str, TextMeasures]) -> list[list[str]]:
    """Return the measures of whole texts and of all targets as rows of strings, a row per network;
    the first row is the heading."""
    heading = ["checkpoint", "documents", "bytes", "bits/byte", "perplexity",
               "bits/byte at positions", "mean", "bound", "target bytes"]  # fmt: skip
    return [heading] + [
        [
            name, f"{m.text.documents:,}", f"{m.text.bytes:,}", m.text.bits_per_byte.shown(),
            m.text.perplexity.shown(".2f"),
            *(m.targets.bits_per_byte[key].shown() for key in ("none", "mean", "bound")),
            f"{m.targets.bytes:,}",
        ]
        for name, m in measured.items()
    ]  # fmt: skip


def group_rows(measured: Mapping[str, TextMeasures], which: str) -> list[list[str]]:
    """Return gains by group of target tokens as rows of strings, in nats per token; groups without
    tokens are left out.

    Args:
      measured: by the names of the networks.
      which: "classes" or "buckets".
    """
    gains = ("mean", "bound", *CONTROLS)
    heading = ["checkpoint", which, "tokens", "loss", *(f"gain, {name}" for name in gains)]
    return [heading] + [
        [name, group.name, f"{group.tokens:,}", group.loss["none"].shown(),
         *(group.gain[key].shown("+.3f") for key in gains)]
        for name, m in measured.items()
        for group in (m.targets, *getattr(m, which))
        if group.tokens
    ]  # fmt: skip
