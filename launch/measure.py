"""Measure checkpoints on a text: does thinking help, where, and is it reasoning?

    python -m launch.measure --checkpoint=base=runs/base,rlp=runs/rlp --text=held_out.jsonl \\
        --thoughts=4 --positions=8 --documents=64 --out=measured

prints the tables of docs/measures.md and writes them to measures.md, and everything that was
measured, the thoughts included, to measures.json. `--checkpoint` takes the same values as
`init_from`, separated by commas, each with an optional name: a run, a step of it, or a model in the
Hugging Face format or in a GGUF file. They are measured one after the other, at the same positions
if they have the same tokenizer.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from rlp.runtime.errors import UserError

_CHECKPOINTS = flags.DEFINE_string(
    "checkpoint", None, "[name=]<run, run@step, folder or GGUF file>[,…]", required=True
)
_TEXT = flags.DEFINE_string(
    "text", None, ".txt, .jsonl or .parquet files, folders or globs, as in data.train",
    required=True,
)  # fmt: skip
_COLUMN = flags.DEFINE_string("text_column", "text", "column of a row with the document")
_SEPARATOR = flags.DEFINE_string("txt_separator", "", "splits .txt files into documents")
_DOCUMENTS = flags.DEFINE_integer("documents", 64, "maximum number of documents", lower_bound=2)
_POSITIONS = flags.DEFINE_integer(
    "positions", 8, "positions per document, drawn uniformly", lower_bound=1
)
_STRIDE = flags.DEFINE_integer(
    "stride", 0, "if not 0, every so many tokens of the text instead of --positions", lower_bound=0
)
_MARKER = flags.DEFINE_string(
    "fork_marker", "", "instead of --positions: after the last occurrence of this text"
)
_THOUGHTS = flags.DEFINE_integer("thoughts", 4, "thoughts per position", lower_bound=1)
_HORIZON = flags.DEFINE_integer("horizon", 8, "tokens scored after a thought", lower_bound=1)
_LENGTH = flags.DEFINE_integer(
    "length", 64, "maximum tokens of a thought, with its closing tag", lower_bound=2
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.7, "sampling temperature; 0 = greedy", lower_bound=0
)
_WINDOW = flags.DEFINE_integer(
    "window", 256, "tokens of a window; longer documents are cut into overlapping ones",
    lower_bound=4,
)  # fmt: skip
_BOS = flags.DEFINE_string(
    "bos", "", "token before the text; 'none' = no token, '' = that of the model's tokenizer"
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of positions and samples", lower_bound=0)
_BRANCHES = flags.DEFINE_integer(
    "branches", 64, "maximum number of thoughts at a time; bounds memory, changes no result",
    lower_bound=1,
)  # fmt: skip
_OUT = program.define_output("out", "folder to create")


def main(_: Sequence[str]) -> None:
    """Measure the checkpoints, print the tables and write them."""
    from rlp.run.named_models import check_models, named_models

    checkpoints = named_models(_CHECKPOINTS.value)
    _check()
    out = Path(_OUT.value)

    from configs import default
    from models.sharding import make_mesh
    from rlp.data.located_text import read_texts
    from rlp.evaluation.measures.positions import Positions
    from rlp.run import measure
    from rlp.run.opened_model import open_model
    from rlp.runtime.atomic_files import refuse_existing, unfinished, write_json, write_whole

    refuse_existing(out)
    settings = measure.Settings(
        texts=read_texts(_TEXT.value, "--text", _COLUMN.value, _SEPARATOR.value),
        documents=_DOCUMENTS.value,
        positions=Positions(_POSITIONS.value, _STRIDE.value, _MARKER.value),
        thoughts=_THOUGHTS.value,
        horizon=_HORIZON.value,
        length=_LENGTH.value,
        temperature=_TEMPERATURE.value,
        window=_WINDOW.value,
        seed=_SEED.value,
        branches=_BRANCHES.value,
    )
    check_models(checkpoints)
    mesh, config = make_mesh(), default.get_config()
    open_checkpoint = lambda name: open_model(name, config, mesh, _BOS.value)
    measured = measure.measure_all(checkpoints, open_checkpoint, settings)
    for title, rows in measure.tables(measured).items():
        print(f"{title}\n\n{measure.terminal(rows)}\n")
    used = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    used |= {"texts": _TEXT.value, "positions": dataclasses.asdict(settings.positions)}
    with unfinished(out) as folder:
        write_whole(folder / "measures.md", measure.markdown(measured))
        checkpoint_data = [dataclasses.asdict(m) for m in measured.values()]
        write_json(folder / "measures.json", {"settings": used, "models": checkpoint_data})
    print(f"measures: {out}")


def _check() -> None:
    """Refuse flags that exclude each other."""
    if not math.isfinite(_TEMPERATURE.value):
        raise UserError(f"--temperature={_TEMPERATURE.value}; it must be a finite number")
    flag = {
        "--positions": _POSITIONS.present, "--stride": _STRIDE.value, "--fork_marker": _MARKER.value
    }  # fmt: skip
    if len(given := [name for name, value in flag.items() if value]) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; set only one of them")


if __name__ == "__main__":
    program.run(main)
