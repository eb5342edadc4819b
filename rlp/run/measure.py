"""Measure checkpoints on a text: bits per byte with and without thoughts, and counterfactuals.

Every checkpoint is opened, measured and dropped before the next one is opened.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlp.capacity import device_memory
from rlp.data.batch import Batch
from rlp.data.located_text import LocatedText, locate, windows_of
from rlp.engine.method import Method
from rlp.evaluation.measures import counterfactuals, text_measures
from rlp.evaluation.measures.counterfactuals import Counterfactuals, ScoredThoughts
from rlp.evaluation.measures.estimates import mean
from rlp.evaluation.measures.given_thoughts import TextScorer
from rlp.evaluation.measures.positions import Positions, choose
from rlp.evaluation.measures.text_measures import TextMeasures
from rlp.evaluation.measures.token_classes import classify
from rlp.report.inline import Column, text_table
from rlp.report.markdown import aligned
from rlp.run import memory_check
from rlp.run.opened_model import Opened
from rlp.runtime.display import markdown_cell
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress
from rlp.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, the same for all checkpoints.

    Attributes:
      texts: Documents, of which the first usable ones are measured (`read_texts` spreads them).
      documents: The most documents.
      positions: How the positions of thoughts are chosen.
      thoughts: S, thoughts per position.
      horizon: H, tokens of a target; fewer if a document ends within them, with a fork marker.
      length: L, the most tokens of a thought, including its closing tag.
      temperature: Of the sampler; 0 for greedy thoughts.
      window: T, tokens of a row, including BOS.
      seed: Of positions, thoughts and shuffling.
      branches: The most thoughts that are sampled at a time.
    """

    texts: Sequence[str]
    documents: int
    positions: Positions
    thoughts: int
    horizon: int
    length: int
    temperature: float
    window: int
    seed: int
    branches: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measures of a checkpoint.

    Attributes:
      name: Of the checkpoint.
      step: Of the checkpoint; None if it is not from a run.
      left_out: Documents that have no usable position, among those that were read for it.
      text: Language-model measures.
      counterfactuals: Gains of thoughts and of what replaces them.
      thoughts: The thoughts with their targets and gains, as plain data.
    """

    name: str
    step: int | None
    left_out: int
    text: TextMeasures
    counterfactuals: Counterfactuals
    thoughts: list[dict[str, Any]]


def measure_all(
    checkpoints: Mapping[str, str],
    open_checkpoint: Callable[[str], Opened],
    settings: Settings,
) -> dict[str, Measured]:
    """Measure checkpoints one after the other.

    Args:
      checkpoints: From names to what `open_checkpoint` takes.
      open_checkpoint: Opens a checkpoint.
      settings: What is measured.

    Raises:
      UserError: If a checkpoint or a text cannot be used.
    """
    return {
        name: measure(name, open_checkpoint(source), settings)
        for name, source in checkpoints.items()
    }


def measure(name: str, opened: Opened, settings: Settings) -> Measured:
    """Measure an opened checkpoint.

    Args:
      name: Of the checkpoint in tables and progress bars.
      opened: The checkpoint.
      settings: What is measured.

    Raises:
      UserError: If the settings do not suit the checkpoint, or no document has a position.
    """
    method, tokenizer = opened.method, opened.method.tokenizer
    _check(name, opened, settings)
    documents, left_out = _documents(settings, tokenizer)
    s = settings
    forked = choose(documents, s.positions, s.horizon, s.window, tokenizer, s.seed)
    if forked is None:
        raise UserError(_why_none(name, s))
    engine = dataclasses.replace(
        method.settings, horizon=s.horizon, thought_length=s.length, temperature=s.temperature
    )
    scorer = TextScorer(Method(method.model, engine, method.vocabulary), opened.mesh, s.branches)
    _check_memory(scorer, forked.rows, s)
    watch = lambda label: _watched(f"{name}: {label}")
    whole = text_measures.whole_text(
        scorer, opened.params, documents, s.window, tokenizer, watch("text")
    )
    scored = counterfactuals.score(
        scorer, opened.params, forked, s.thoughts, tokenizer, s.seed, watch
    )
    classes = [classify(document) for document in documents]
    sizes = [document.bytes_of_tokens() for document in documents]
    return Measured(
        name=name,
        step=opened.step,
        left_out=left_out,
        text=text_measures.measure(whole, scored, classes, sizes),
        counterfactuals=counterfactuals.summarize(scored, tokenizer),
        thoughts=_plain(scored, tokenizer),
    )


def tables(measured: Mapping[str, Measured]) -> dict[str, list[list[str]]]:
    """Return the tables over checkpoints by their titles, as rows of strings with a heading; the
    first column is the name of the checkpoint."""
    texts = {name: m.text for name, m in measured.items()}
    gains = {name: m.counterfactuals for name, m in measured.items()}
    differences = difference_rows(measured)
    paired = f"Difference from {next(iter(measured))}, nats per target"
    return {
        "Bits per byte": text_measures.text_rows(texts),
        "By class of token, nats per token": text_measures.group_rows(texts, "classes"),
        "By loss without a thought, nats per token": text_measures.group_rows(texts, "buckets"),
        "Gain of a thought and of what replaces it, nats per target": (
            counterfactuals.gain_rows(gains)
        ),
        "What the replacement loses, nats per target": counterfactuals.lost_rows(gains),
        **({paired: differences} if len(differences) > 1 else {}),
        "The thoughts": counterfactuals.shape_rows(gains),
    }


def difference_rows(measured: Mapping[str, Measured]) -> list[list[str]]:
    """Return how much the log-likelihood of the targets without a thought, and each gain, differ
    from those of the first checkpoint, as rows of strings with a heading.

    Both checkpoints have the same targets, so the standard errors are those of differences within
    documents. Checkpoints with other targets (another tokenizer) have no row.
    """
    (_, first), *others = measured.items()
    places = lambda m: [(t["document"], t["position"], t["target"]) for t in m.thoughts]
    documents = np.array([thought["document"] for thought in first.thoughts])
    names = ("no thought", "real", *counterfactuals.REPLACEMENTS)
    value = lambda thought, name: ({"no thought": thought["without"]} | thought["gains"])[name]

    def difference(other: Measured, name: str) -> str:
        pairs = zip(other.thoughts, first.thoughts, strict=True)
        gaps = [value(a, name) - value(b, name) for a, b in pairs]
        return mean(np.array(gaps), documents).shown("+.3f")

    return [["checkpoint", *names]] + [
        [checkpoint, *(difference(other, name) for name in names)]
        for checkpoint, other in others
        if places(other) == places(first)
    ]


def terminal(rows: Sequence[Sequence[str]]) -> str:
    """Format a table of `tables` for a terminal."""
    head, *body = rows
    columns = zip(head, zip(*body, strict=True), strict=True)
    return text_table([Column(name, cells, not i) for i, (name, cells) in enumerate(columns)])


def markdown(measured: Mapping[str, Measured]) -> str:
    """Return all tables as Markdown."""
    parts = []
    for title, rows in tables(measured).items():
        cells = [[markdown_cell(cell) for cell in row] for row in rows]
        parts += [f"**{title}**", aligned(cells, words=1)]
    return "\n\n".join(parts) + "\n"


def _check(name: str, opened: Opened, settings: Settings) -> None:
    """Refuse settings that do not suit a checkpoint, before anything is computed."""
    method, s = opened.method, settings
    shortest = len(method.tokenizer.bos) + 2 * (s.horizon + 1)
    if s.window < shortest:
        raise UserError(
            f"--window={s.window} is too short for --horizon={s.horizon} and {name}; set it to "
            f"{shortest} or more"
        )
    close, words = len(method.tokenizer.think_close), method.settings.min_thought_length
    if s.length < words + close:
        before = "a word" if words == 1 else f"rlp.min_thought_length={words} tokens"
        raise UserError(
            f"--length={s.length} leaves no room for {before} and the closing tag of {name}, which "
            f"has {close} token(s); set it to {words + close} or more"
        )


def _check_memory(scorer: TextScorer, rows: Batch, settings: Settings) -> None:
    """Refuse thoughts at the forks of rows that do not fit on a device, before they are sampled."""
    s, model, mesh = settings, scorer.method.model, scorer.mesh
    per_row = rows.forks.shape[1] * s.thoughts
    held = scorer.held_rows(len(rows.index), per_row)
    # A device holds at least one row, however few branches are allowed.
    if held > 1:
        sizes = {"--branches": s.branches}
    elif s.thoughts > 1:
        sizes = {"--thoughts": s.thoughts}
    else:
        sizes = {"--thoughts": 1, "--length": s.length}
    limits = device_memory.limits(mesh.local_devices)
    memory_check.check_sampling(model, mesh, held * per_row, s.length, sizes, limits)


def _documents(settings: Settings, tokenizer: Tokenizer) -> tuple[list[LocatedText], int]:
    """Return the first documents that have room for a position, and how many were left out."""
    documents: list[LocatedText] = []
    left_out, longest = 0, 1 if settings.positions.marker else settings.horizon
    for text in settings.texts:
        if len(documents) == settings.documents:
            break
        document = locate(text, tokenizer)
        fits = len(document.ids) > longest
        if fits and windows_of(document, settings.window, tokenizer):
            documents.append(document)
        else:
            left_out += 1
    return documents, left_out


def _why_none(name: str, settings: Settings) -> str:
    """Return the message for a text without positions."""
    if settings.positions.marker:
        return (
            f"{name}: no document contains --fork_marker={settings.positions.marker!r} with text "
            "after it, in a window without a thinking tag; set it to a text that precedes what is "
            "predicted"
        )
    return (
        f"{name}: no document has more than --horizon={settings.horizon} tokens without a thinking "
        "tag; lower it, or use longer documents"
    )


def _watched(label: str) -> Callable[[Sequence[Any]], Iterator[Any]]:
    """Return a function that wraps a list of batches in a progress bar."""

    def watch(batches: Sequence[Any]) -> Iterator[Any]:
        with progress(len(batches), 0, label, "batch") as bar:
            for batch in batches:
                yield batch
                bar.update(1)

    return watch


def _plain(scored: ScoredThoughts, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return thoughts with their targets and gains (nats per target) as plain data."""
    nats = lambda logprobs: float(logprobs.sum(axis=-1))
    plain = []
    targets = scored.target_texts(tokenizer)
    for p, group in enumerate(scored.words):
        without = nats(scored.without[p])
        for s, ids in enumerate(group):
            replaced = {
                name: nats(after[p, s % after.shape[1]]) - without
                for name, after in scored.replaced.items()
            }
            plain.append(
                {
                    "document": int(scored.document[p]),
                    "position": int(scored.position[p]),
                    "target": targets[p],
                    "thought": tokenizer.decode(ids),
                    "closed": bool(scored.closed[p, s]),
                    "without": without,
                    "gains": {"real": nats(scored.after[p, s]) - without} | replaced,
                }
            )
    return plain
