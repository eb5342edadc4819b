"""Streams of prompts with their responses.

    files → conversations → tokens and which of them are learnt → rows → records

A pair is never cut: one that is longer than a row is left out and counted. Packed, a row holds
several side by side, as it does documents.
"""

from collections.abc import Sequence

import numpy as np

from rlp.data.conversations import Format, Stretch, joined, rendered
from rlp.data.corpus import Corpus, grouped, hold_out, reading
from rlp.data.sources import find_files, read_rows
from rlp.data.text import TextStream, check_disjoint, shuffled, spread
from rlp.data.windows import pack_windows, whole_windows
from rlp.errors import UserError
from rlp.tokenizer import Tokenizer

GROUP = "data.sft"  # of the fields of the config


def pair_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: Format,
    template: str | None,
    tokenizer: Tokenizer,
    sequence_length: int,
    pack: bool = False,
    seed: int = 0,
) -> tuple[TextStream, TextStream]:
    """The training stream and the held-out one, whose batches have a `loss_mask`.

    Both are as those of `text.text_streams`, a row of a file being what a document is there.

    Args:
      train: files, folders or globs, separated by commas.
      evaluation: held-out files in the same forms; "" holds out every `holdout_every`-th row of
        `train`.
      holdout_every: rows of files.
      form: the columns.
      template: Jinja, which renders the messages; None joins them as they are, each response
        followed by the tokenizer's separator.
      tokenizer: gives ids.
      sequence_length: T, tokens of a row; pairs with more are left out and counted.
      pack: training rows hold several pairs; otherwise one.
      seed: of the training order.

    Raises:
      UserError: files, rows or a template that cannot be used, too few pairs to hold out any, none
        that is short enough.
    """
    files = find_files(train, f"{GROUP}.train")
    how = (form, template, tokenizer)
    if evaluation:
        held_files = find_files(evaluation, f"{GROUP}.evaluation")
        check_disjoint(files, held_files, GROUP)
        corpus, _ = tokenize_pairs(files, f"{GROUP}.train", *how)
        held_corpus, _ = tokenize_pairs(held_files, f"{GROUP}.evaluation", *how)
        kept, held = np.arange(len(corpus)), np.arange(len(held_corpus))
    else:
        corpus, source = tokenize_pairs(files, f"{GROUP}.train", *how)
        sources = hold_out(int(source[-1]) + 1, holdout_every, GROUP, "pairs")
        kept, held = (np.flatnonzero(np.isin(source, numbers)) for numbers in sources)
        held_corpus = corpus

    def stream(which: str, corpus: Corpus, pairs: np.ndarray, packed: bool) -> TextStream:
        windows = whole_windows(corpus, pairs, sequence_length)
        if not len(windows):
            shortest = np.diff(corpus.bounds)[pairs].min()
            raise UserError(
                f"no {which} pair of {GROUP} fits in data.sequence_length={sequence_length} (the "
                f"shortest has {shortest} tokens): raise it"
            )
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, sequence_length)
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), seed) if which == "training" else spread(len(rows)),
            sequence_length=sequence_length,
            pad=tokenizer.pad,
            skipped=len(pairs) - len(windows),
        )

    return stream("training", corpus, kept, pack), stream("held-out", held_corpus, held, False)


def tokenize_pairs(
    files: Sequence[str], field: str, form: Format, template: str | None, tokenizer: Tokenizer
) -> tuple[Corpus, np.ndarray]:
    """All pairs of files, and the number of the conversation that each is from, int64 [pairs].

    Without a template, a pair is [bos] prompt response separator. With one, the template's text has
    the tokens that begin and end it. Learnt are the tokens of responses, what ends them included.

    Args:
      files: paths, see `sources.read_rows`.
      field: name of the config field they come from, for messages.
      form, template, tokenizer: as of `pair_streams`.

    Raises:
      UserError: a file, row or template that cannot be used, or no pair in any of the files.
    """

    def rows_of(where: str, values: Sequence[object]) -> list[list[Stretch]]:
        messages = form.conversation(where, values)
        if not messages:
            return []
        if template is None:
            return [joined(messages)]
        return rendered(where, messages, lambda some, ask: tokenizer.chat(some, template, ask))

    head = [] if template is not None or tokenizer.bos is None else [tokenizer.bos]
    tail = [tokenizer.separator] if template is None else []
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    tokens: list[np.ndarray] = []
    learnt: list[np.ndarray] = []
    source: list[int] = []
    with reading(files, field) as bar:
        read = (rows_of(*row) for row in read_rows(files, form.columns, bar.update))
        numbered = ((n, row) for n, rows in enumerate(filter(None, read)) for row in rows)
        size = lambda item: sum(len(stretch.text) for stretch in item[1])
        for group in grouped(numbered, size):
            texts = [stretch.text for _, row in group for stretch in row]
            ids = iter(tokenizer.encode_all(texts))
            for number, row in group:
                ends = [tail if stretch.learnt else [] for stretch in row]
                parts = [np.array(head), *(np.concatenate([next(ids), end]) for end in ends)]
                flags = np.array([False, *(stretch.learnt for stretch in row)])
                tokens.append(np.concatenate(parts).astype(dtype))
                learnt.append(np.repeat(flags, [len(part) for part in parts]))
                source.append(number)
    if not tokens:
        raise UserError(f"{field}: no pairs in {', '.join(files[:3])}: every response is empty")
    corpus = Corpus(
        np.concatenate(tokens),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        np.full(len(tokens), -1, np.int64),
        np.concatenate(learnt),
    )
    return corpus, np.asarray(source, np.int64)
