"""Streams of prompts with their responses.

    files → conversations → tokens and which of them are learnt → rows → records

A pair is never cut: one that is longer than a row is left out and counted. Packed, a row holds
several side by side, as it does documents.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlp.data.bounds import LIMITS, Limits
from rlp.data.conversations import (
    Format,
    Message,
    Render,
    Stretch,
    asked_for,
    check_whole,
    joined,
    leaves_out_calls,
    rendered,
)
from rlp.data.corpus import Corpus, grouped, hold_out, reading
from rlp.data.file_list import check_disjoint, find_files
from rlp.data.layout import HELD_OUT
from rlp.data.messages import ASSISTANT
from rlp.data.order import shuffled, spread
from rlp.data.sources import as_text, read_rows
from rlp.data.summary import Summary
from rlp.data.text_stream import TextStream, tell
from rlp.data.windows import pack_windows, whole_windows
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError
from rlp.tokenizers.chat_templates import LimitExceeded
from rlp.tokenizers.tokenizer import Tokenizer

GROUP = "data.sft"  # of the fields of the config
# Texts that are tokenized whole, in stretches, each with the ids that follow it.
Row = list[tuple[list[Stretch], list[int]]]
_AHEAD = 8  # texts of a conversation that are rendered ahead; all those of a long one take n² room


def pair_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: Format,
    template: str | None,
    end: int | None = None,
    tokenizer: Tokenizer,
    sequence_length: int,
    pack: bool = False,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
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
      end: id that ends a turn of the template, the last that is learnt of a response; None for all
        that the template adds.
      tokenizer: gives ids.
      sequence_length: T, tokens of a row; pairs with more are left out and counted.
      pack: training rows hold several pairs; otherwise one.
      max_unusable_share: of the rows of files that may be left out since they cannot be used.
      limits: of what is read of files.
      seed: of the training order.

    Raises:
      UserError: files, rows or a template that cannot be used, too few pairs to hold out any, none
        that is short enough.
    """
    files = find_files(train, f"{GROUP}.train")
    how = (form, template, tokenizer, end, max_unusable_share, limits)
    bos = tokenizer.bos if template is None else ()  # a template writes its own
    held_field = f"{GROUP}.evaluation" if evaluation else HELD_OUT.format(f"{GROUP}.train")
    if evaluation:
        held_files = find_files(evaluation, held_field)
        check_disjoint(files, held_files, GROUP)
        corpus, _ = tokenize_pairs(files, f"{GROUP}.train", *how)
        held_corpus, _ = tokenize_pairs(held_files, held_field, *how)
        kept, held = np.arange(len(corpus)), np.arange(len(held_corpus))
    else:
        corpus, source = tokenize_pairs(files, f"{GROUP}.train", *how)
        sources = hold_out(int(source[-1]) + 1, holdout_every, GROUP, "pairs")
        kept, held = (np.flatnonzero(np.isin(source, numbers)) for numbers in sources)
        held_corpus = corpus

    def stream(which: str, corpus: Corpus, pairs: np.ndarray, packed: bool) -> TextStream:
        windows = whole_windows(corpus, pairs, sequence_length, len(bos))
        if not len(windows):
            shortest = len(bos) + np.diff(corpus.bounds)[pairs].min()
            raise UserError(
                f"no {which} pair of {GROUP} fits in data.sequence_length={sequence_length} (the "
                f"shortest has {shortest} tokens): raise it",
                field="data.sequence_length",
                value=sequence_length,
            )
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, sequence_length)
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), seed) if which == "training" else spread(len(rows)),
            field=f"{GROUP}.train" if which == "training" else held_field,
            documents=len(pairs),
            sequence_length=sequence_length,
            bos=bos,
            pad=tokenizer.pad,
            skipped=len(pairs) - len(windows),
        )

    made = stream("training", corpus, kept, pack), stream("held-out", held_corpus, held, False)
    tell(corpus, held_corpus, *made, "pairs", "longer than data.sequence_length")
    return made


def tokenize_pairs(
    files: Sequence[str],
    field: str,
    form: Format,
    template: str | None,
    tokenizer: Tokenizer,
    end: int | None = None,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
) -> tuple[Corpus, np.ndarray]:
    """All pairs of files, and the number of the conversation that each is from, int64 [pairs].

    Without a template, a pair is prompt, response and separator, behind a bos that is not in the
    corpus. With one, the template's text has the tokens that begin and end it. Learnt are the
    tokens of responses, what ends them included.

    The ids are those of the whole text, with every kind of tokenizer: some put a space before a
    text that is tokenized alone. A token across the place where a response begins is learnt.

    Args:
      files: paths, see `sources.read_rows`.
      field: name of the config field they come from, for messages.
      form, template, tokenizer, end, max_unusable_share, limits: as of `pair_streams`.

    Raises:
      UserError: a file that cannot be read, too many rows that cannot be used, or no pair in any of
        the files.
    """
    summary = Summary(field, files, max_unusable_share, "pairs")
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    tokens: list[np.ndarray] = []
    learnt: list[np.ndarray] = []
    source: list[int] = []
    with reading(files, field) as bar:
        read = _read(summary, form, template, tokenizer, bar.update, limits)
        numbered = ((n, row) for n, rows in enumerate(read) for row in rows)
        size = lambda item: sum(len(s.text) for stretches, _ in item[1] for s in stretches)
        for group in grouped(numbered, size):
            texts = ["".join(s.text for s in part) for _, row in group for part, _ in row]
            encoded = iter(tokenizer.encode_spans(texts))
            for number, row in group:
                parts = [_with_flags(*next(encoded), *part, end) for part in row]
                ids, flags = zip(*parts, strict=True)
                tokens.append(np.concatenate(ids).astype(dtype))
                learnt.append(np.concatenate(flags))
                source.append(number)
    summary.finish()
    if not tokens:
        raise UserError(
            f"{field}: no pairs in {listed(files)}: every response is empty", field=field
        )
    corpus = Corpus(
        np.concatenate(tokens),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        np.full(len(tokens), -1, np.int64),
        np.concatenate(learnt),
        summary,
    )
    return corpus, np.asarray(source, np.int64)


def _read(
    summary: Summary,
    form: Format,
    template: str | None,
    tokenizer: Tokenizer,
    on_read: Callable[[int], object],
    limits: Limits,
) -> Iterator[list[Row]]:
    """The conversations of files, each as its rows; counts those left out."""

    size = lambda item: sum(len(m["content"]) for m in item[1] if item[2] is None)
    for path in summary.files:
        for block in grouped(_conversations(path, form, on_read, limits), size):
            render = None
            if template is not None:
                render = _ahead([messages for _, messages, _ in block], template, tokenizer)
            for where, messages, unusable in block:
                try:
                    if unusable:
                        raise unusable
                    rows, calls = _stretches(where, messages, render)
                except LimitExceeded:
                    raise
                except UserError as error:
                    summary.unusable.count(error)
                    continue
                summary.unusable.count()
                for row in rows:
                    summary.count(path, sum(len(stretch.text) for stretch in row))
                if rows and not calls:
                    summary.without_calls.append(where)
                if not rows:
                    summary.empty += 1
                elif template is None:
                    yield [_separated(row, tokenizer) for row in rows]
                else:
                    yield [[(row, [])] for row in rows]


def _conversations(
    path: str, form: Format, on_read: Callable[[int], object], limits: Limits
) -> Iterator[tuple[str, list[Message], UserError | None]]:
    """Where each row of a file stands, its messages, and why it cannot be used."""
    for where, values in read_rows([path], form.columns, on_read, limits):
        try:
            yield where, form.conversation(where, values), None
        except UserError as error:
            yield where, [], error


def _ahead(
    conversations: Sequence[Sequence[Message]], template: str, tokenizer: Tokenizer
) -> Render:
    """Renders messages; the beginnings of some conversations at once, since a process does it."""
    requests = [
        (list(messages), ask)
        for conversation in conversations
        for messages, ask in itertools.islice(asked_for(conversation), _AHEAD)
    ]
    texts = tokenizer.chat_all(requests, template)
    known = {  # by the messages themselves, which live as long as their conversations
        (*map(id, messages), ask): text
        for (messages, ask), text in zip(requests, texts, strict=False)
    }

    def render(messages: Sequence[Message], ask: bool) -> str:
        found = known.get((*map(id, messages), ask))
        if isinstance(found, UserError):
            raise found
        return tokenizer.chat(messages, template, ask) if found is None else found

    return render


def _stretches(
    where: str, messages: Sequence[Message], render: Render | None
) -> tuple[list[list[Stretch]], bool]:
    """A conversation as rows of stretches, none for an empty one, and whether they hold what its
    assistant calls beside its contents.

    Raises:
      UserError: the template refuses it or leaves out a message.
    """
    if not messages:
        return [], True
    rows = [joined(messages)] if render is None else rendered(where, messages, render)
    calls = not leaves_out_calls(messages, render)
    said = (m["content"].strip() for m in messages if m["role"] == ASSISTANT)
    if not (calls or any(said)):
        return [], calls
    if render is None:
        return rows, calls
    check_whole(where, messages, rows, render)
    for row in rows:
        for stretch in row:
            as_text(where, "what the chat template makes", stretch.text)
    return rows, calls


def _separated(stretches: Sequence[Stretch], tokenizer: Tokenizer) -> Row:
    """Stretches with the separator after every response.

    Where its name encodes to it, the row is one text; else what follows a separator is a text of
    its own, behind its id.
    """
    separator = tokenizer.separator
    name = tokenizer.decode([separator])
    if tokenizer.encode(name) == [separator]:
        end = [Stretch(name, True)]
        return [([x for s in stretches for x in (s, *(end if s.learnt else []))], [])]
    row: Row = [([], [])]
    for stretch in stretches:
        row[-1][0].append(stretch)
        if stretch.learnt:
            row[-1][1].append(separator)
            row.append(([], []))
    return row[:-1]  # a conversation ends with a response


def _with_flags(
    ids: np.ndarray,
    spans: np.ndarray,
    stretches: Sequence[Stretch],
    after: Sequence[int],
    end: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a text and those after it, and which of them are learnt.

    Args:
      ids, spans: of the text, see `Tokenizer.encode_spans`.
      stretches: of the text. A token belongs to the one that holds its last character, and an end
        of a turn to the one in which it begins: such tokens may take in the space after them.
      after: ids after the text, which are learnt.
      end: as of `pair_streams`.
    """
    number = np.repeat(np.arange(len(stretches)), [len(s.text) for s in stretches])
    place = np.where(ids == end, spans[:, 0], np.maximum(spans[:, 1] - 1, 0))
    of = number[place] if len(ids) else np.zeros(0, np.int64)
    learnt = np.array([s.learnt for s in stretches], bool)[of]
    for stretch in np.unique(of[learnt & (ids == end)]) if end is not None else ():
        tokens = np.flatnonzero(of == stretch)
        first = int(np.argmax(ids[tokens] == end))
        learnt[tokens[first + 1 :]] = False
    return np.concatenate([ids, after]), np.concatenate([learnt, np.ones(len(after), bool)])
