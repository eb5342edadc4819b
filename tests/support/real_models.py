"""The pretrained models that `make models` downloads; slow tests are skipped without them."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT


class RealModel(NamedTuple):
    """A GGUF file, and the run with 0 steps that was imported from it."""

    gguf: Path
    run: Path


def smollm2() -> RealModel:
    """SmolLM2-135M-Instruct."""
    return _found("smollm2-135m-instruct")


def gemma3() -> RealModel:
    """Gemma 3 270M, the base model."""
    return _found("gemma-3-270m")


def _found(name: str) -> RealModel:
    model = RealModel(ROOT / f".cache/models/{name}.gguf", ROOT / "runs/models" / name)
    if not (model.gguf.is_file() and model.run.is_dir()):
        pytest.skip(f"{name} is missing; run `make models` to download it")
    return model
