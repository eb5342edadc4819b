"""From a config to documents, pairs and problems: what a run reads, and takes time to read."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rlp.answers.gold_answers import Golds
from rlp.answers.grading import Grader
from rlp.answers.planning_phrases import PHRASES
from rlp.data import compass
from rlp.data.batch import Batch, HeldOut, Problems, Stream
from rlp.data.bounds import Limits
from rlp.data.conversations import Format
from rlp.data.lookahead import LookaheadStream
from rlp.data.mix import MixedStream
from rlp.data.pairs import pair_streams
from rlp.data.problems import ProblemFormat, problem_streams
from rlp.data.text import TextStream, text_streams
from rlp.evaluation.responses import Frame
from rlp.interop.init_from import same_template, same_tokenizer
from rlp.objectives.registry import reads_answers
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.files import TEMPLATE
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN, Tokenizer
from rlp.tokenizers.turns import end_of_turn

LOGGER = logging.getLogger(__name__)

LONGEST_TEXT = 2**24  # bytes of a chat template, a prompt or a list of phrases

COMPASS = "compass"  # the source whose documents are made


def answers_problems(config: ConfigDict) -> bool:
    """Whether the objective of a run is over the answers to problems."""
    return reads_answers(config.objective)


def asks_problems(config: ConfigDict) -> bool:
    """Whether a run answers problems, in training or held out."""
    return answers_problems(config) or bool(config.data.problems.evaluation)


def held_out_positions(config: ConfigDict) -> str:
    """Where thoughts branch off held-out documents: "uniform" or "given"."""
    trained = "given" if config.rlp.positions == "given" else "uniform"
    return config.evaluation.positions or trained


def read_data(
    config: ConfigDict, tokenizer: Any, template: str | None, frame: Frame | None
) -> tuple[Stream, HeldOut]:
    """The training stream, and the held-out rows of one document, pair or problem each.

    Args:
      config: of the run.
      tokenizer: of the run.
      template: of its chats, Jinja; None where messages are taken as they are.
      frame: of responses; None for a run that answers no problems.

    Raises:
      UserError: for files that cannot be used.
    """
    stream: Stream | None = None
    held_out = HeldOut(None)
    if config.data.kind == COMPASS:
        stream, held_out = _compass(config, tokenizer)
    elif not answers_problems(config):
        stream, held_out = _files(config, tokenizer, template)
    if frame is not None:
        training, problems, found = _problems(config, tokenizer, frame)
        stream = training if answers_problems(config) else stream
        found = {**held_out.fingerprint, **found}
        held_out = dataclasses.replace(held_out, problems=problems, fingerprint=found)
    assert stream is not None
    LOGGER.info("%s", before_texts(config, tokenizer))
    if template is not None and (config.data.sft.share or frame is not None):
        LOGGER.info("what goes through the chat template begins as the template has it")
    return stream, held_out


def before_texts(config: ConfigDict, tokenizer: Any) -> str:
    """What stands before every text of a run, in words."""
    names = " ".join(f"{tokenizer.decode([i])!r} (token {i})" for i in tokenizer.bos)
    why = f"data.bos={config.data.bos!r}" if config.data.bos else "as its tokenizer does"
    return f"before every text: {names or 'nothing'} ({why})"


def _compass(config: ConfigDict, tokenizer: Any) -> tuple[Stream, HeldOut]:
    """Walks, or pairs of their questions and answers; held out, walks without thoughts, and pairs
    where training has them."""
    data, wanted = config.data, config.evaluation.documents
    walks = compass.CompassStream(config.seed, data.sequence_length, **data.compass)
    held = compass.CompassStream(0, compass.DOCUMENT_LENGTH, held_out=True)
    unseen, found = held.batch(0, wanted), held.fingerprint()
    if not data.sft.share:
        return _with_lookaheads(config, tokenizer, walks), HeldOut(unseen, fingerprint=found)
    others = compass.CompassStream(0, data.sequence_length, held_out=True, **data.compass)
    pairs = compass.CompassPairs(others).batch(0, wanted)
    found = others.fingerprint()
    return compass.CompassPairs(walks), HeldOut(unseen, pairs, fingerprint=found)


def _files(config: ConfigDict, tokenizer: Any, template: str | None) -> tuple[Stream, HeldOut]:
    """Documents, pairs or a mixture of them, from files."""
    wanted, share = config.evaluation.documents, config.data.sft.share
    first = lambda rows: rows.batch(0, min(wanted, len(rows)))
    if share < 1:
        plain, unseen = _documents(config, tokenizer)
        documents = _with_lookaheads(config, tokenizer, plain)
        if share == 0:
            return documents, HeldOut(first(unseen), fingerprint=unseen.fingerprint())
    pairs, unseen_pairs = _pairs(config, tokenizer, template)
    found = unseen_pairs.fingerprint()
    if share == 1:
        return pairs, HeldOut(None, first(unseen_pairs), fingerprint=found)
    held_out = HeldOut(first(unseen), first(unseen_pairs), fingerprint=unseen.fingerprint() | found)
    return MixedStream(documents, pairs, share), held_out


def _documents(config: ConfigDict, tokenizer: Tokenizer) -> tuple[TextStream, TextStream]:
    """Rows of documents from files, for training and held out."""
    data, rlp = config.data, config.rlp
    min_prefix = max(rlp.min_prefix, len(tokenizer.bos))  # no thought branches off inside a bos
    room = min_prefix + rlp.horizon - 1  # tokens besides one for every fork
    given = "given" in (rlp.positions, held_out_positions(config))
    streams = {
        "train": data.train,
        "evaluation": data.evaluation,
        "holdout_every": data.holdout_every,
        "text_column": data.text_column,
        "txt_separator": data.txt_separator,
        "tokenizer": tokenizer,
        "sequence_length": data.sequence_length,
        "pack": data.pack and config.objective == "next_token",
        "train_forks": config.objective != "next_token",
        "min_tokens": room + rlp.forks_per_document if config.objective != "next_token" else 2,
        "held_out_min_tokens": room + config.evaluation.forks_per_document,
        "fork_marker": data.fork_marker if given else "",
        "min_prefix": min_prefix,
        "horizon": rlp.horizon,
        "max_unusable_share": data.max_unusable_share,
        "limits": read_limits(config),
        "seed": config.seed,
    }
    return text_streams(**streams)


def _with_lookaheads(config: ConfigDict, tokenizer: Any, documents: Stream) -> Stream:
    """Training rows with lookaheads in their share of the documents."""
    data = config.data
    if data.lookahead.share == 0:
        return documents
    return LookaheadStream(
        documents,
        seed=config.seed,
        share=data.lookahead.share,
        length=data.lookahead.length,
        distance=data.lookahead.distance,
        think_open=tokenizer.think_open,
        think_close=tokenizer.think_close,
        bos=len(tokenizer.bos),
        pad=tokenizer.pad,
        ends={tokenizer.pad, *tokenizer.bos, tokenizer.eos, tokenizer.separator},
    )


def _pairs(
    config: ConfigDict, tokenizer: Tokenizer, template: str | None
) -> tuple[TextStream, TextStream]:
    """Rows of prompts with their responses from files, for training and held out."""
    data = config.data
    LOGGER.info("responses follow prompts %s", "plainly" if template is None else "by a template")
    end = None if template is None else end_of_turn(tokenizer, template)
    if template is not None and end is None:
        LOGGER.warning(
            "the chat template does not end a response with a special token, so nothing in what is "
            "learnt says where one ends: sampling and `generate` go on to their limit; set "
            "data.chat_template to a template that ends turns with a token"
        )
    pairs = {
        "train": data.sft.train,
        "evaluation": data.sft.evaluation,
        "holdout_every": data.holdout_every,
        "form": Format(
            prompt=data.sft.prompt_column,
            response=data.sft.response_column,
            messages=data.sft.messages_column,
        ),
        "template": template,
        "end": end,
        "tokenizer": tokenizer,
        "sequence_length": data.sequence_length,
        "pack": data.pack,
        "max_unusable_share": data.max_unusable_share,
        "limits": read_limits(config),
        "seed": config.seed,
    }
    return pair_streams(**pairs)


def _problems(
    config: ConfigDict, tokenizer: Any, frame: Frame
) -> tuple[Stream | None, dict[str, Problems], dict[str, Fingerprint]]:
    """Problems for training, where the objective asks for them, held-out ones, and what these
    are."""
    data, wanted = config.data, config.evaluation.problems
    if config.data.kind == COMPASS:
        length = config.data.sequence_length
        held = compass.CompassProblems(compass.CompassStream(0, length, held_out=True))
        walks = compass.CompassProblems(compass.CompassStream(config.seed, length))
        return walks, {"": held.beginning(wanted)}, held.fingerprint()
    stream, held_out = problem_streams(
        train=data.problems.train,
        evaluation=data.problems.evaluation,
        holdout_every=config.data.holdout_every,
        form=ProblemFormat(
            prompt=data.problems.prompt_column,
            answer=data.problems.answer_column,
            options=data.problems.options_column,
            marker=data.problems.answer_marker,
            instruction=data.problems.instruction,
        ),
        ask=frame.ask,
        golds=Golds(make_grader(config)),
        tokenizer=tokenizer,
        head=frame.head,
        opening=frame.opening[0] if frame.shared else None,
        sequence_length=config.data.sequence_length,
        max_unusable_share=config.data.max_unusable_share,
        limits=read_limits(config),
        seed=config.seed,
    )
    found: dict[str, Fingerprint] = {}
    for name, problems in held_out.items():
        found |= problems.fingerprint(f"data.problems, held out {name}".rstrip())
    return stream, {name: held.beginning(wanted) for name, held in held_out.items()}, found


def read_limits(config: ConfigDict) -> Limits:
    """What is read of a file."""
    return Limits(config.data.max_row_bytes, config.data.max_decompression_ratio)


def make_grader(config: ConfigDict, opened: bool = False) -> Grader:
    """What checks answers; `opened` says that responses begin inside of a thought."""
    data = config.data
    return Grader(
        verifier=data.problems.verifier,
        time_limit=data.problems.time_limit,
        workers=data.problems.workers,
        close=THINK_CLOSE,
        open=THINK_OPEN,
        opened=opened,
        memory_limit=data.problems.memory_limit,
        step_time_limit=data.problems.step_time_limit,
    )


def chat_template(config: ConfigDict, tokenizer: Any, files: Path | None) -> str | None:
    """The Jinja template that makes prompts of messages; None where they are taken as they are.

    Args:
      config: of the run.
      tokenizer: of the run.
      files: of the run, or of what it starts from, in the Hugging Face format. A run that has begun
        keeps its template there, so the file that the config names may be gone.
    """
    named = config.data.chat_template
    if named == "none":
        return None
    if named and not isinstance(tokenizer, FolderTokenizer):
        raise UserError(
            f"data.chat_template={named!r}: bytes have no tokens for a chat template; use a "
            "tokenizer folder, or leave it ''"
        )
    if named and (Path(named).exists() or not same_template(config, files)):
        return file_text("data.chat_template", named, "'' or 'none'")
    if files is not None and config.data.tokenizer and same_tokenizer(config, files):
        kept = files / TEMPLATE  # of a run with this tokenizer
        if kept.is_file():
            return kept.read_text(encoding="utf-8")
    return tokenizer.chat_template


def phrases(config: ConfigDict) -> tuple[str, ...]:
    """The phrases that plan."""
    named = config.data.problems.planning
    if named == "default":
        return PHRASES
    lines = file_text("data.problems.planning", named, "'default'").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def browse_rows(documents: Batch, count: int) -> Batch:
    """The first few held-out documents."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], documents)


def file_text(field: str, name: str, others: str) -> str:
    """The text of the file that a field names, where it is none of its other values."""
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{field}={name!r} is no file; give one, or {others}")
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise UserError(f"{field}={name!r} has {size:,} bytes; {LONGEST_TEXT:,} are the most")
    try:
        return path.read_text(encoding="utf-8-sig")  # without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{field}={name!r} cannot be read: {error}") from error
