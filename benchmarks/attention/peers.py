"""All contenders of a comparison of attention; those of torch run in a separate process."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from benchmarks import fields
from benchmarks.attention import contenders as case
from benchmarks.attention import workload
from benchmarks.attention.contenders import UPDATE
from benchmarks.attention.turns import Contender, Refused
from benchmarks.attention.workload import PASSES, AttentionSizes

TORCH = {
    "flex": "torch FlexAttention, block mask",
    "sdpa_cudnn": "torch SDPA cuDNN, causal",
    "sdpa_flash": "torch SDPA flash, causal",
}


@contextlib.contextmanager
def contenders(
    sizes: AttentionSizes, implementations: Sequence[str], peers: Sequence[str]
) -> Iterator[list[Contender]]:
    """Yield this project's implementations, then the peers; end the torch process at the exit."""
    all_contenders: list[Contender] = [case.product(sizes, name) for name in implementations]
    with contextlib.ExitStack() as stack:
        process = None
        for name in peers:
            if name == "splash":
                from benchmarks.attention import splash  # imports kernels that only TPUs run

                all_contenders += [splash.tree(sizes)] if sizes.forks else []
                all_contenders.append(splash.causal(sizes))
            elif name in TORCH:
                process = process or stack.enter_context(TorchProcess(sizes))
                all_contenders.append(TorchPeer(process, name, sizes))
            else:
                all_contenders += jax_peers(sizes, name)
        yield all_contenders


def jax_peers(sizes: AttentionSizes, implementation: str) -> list[Contender]:
    """Return `jax.nn.dot_product_attention` with an implementation, on all inputs it supports."""
    trees: list[Contender] = []
    if sizes.forks:
        trees.append(case.dense(sizes, implementation))
        trees.append(case.copies(sizes, implementation))
    return [*trees, case.causal(sizes, implementation)]


class TorchProcess:
    """A running `benchmarks.attention.torch`; a context manager that ends it."""

    def __init__(self, sizes: AttentionSizes):
        words = [sys.executable, "-m", "benchmarks.attention.torch", *fields.arguments(sizes)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.missing = self._answer().get("missing")

    def __enter__(self) -> "TorchProcess":
        return self

    def __exit__(self, *_: object) -> None:
        cast(IO[str], self.process.stdin).close()
        self.process.wait()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
          Refused: If torch is missing, cannot run the request, or has ended.
        """
        if self.missing:
            raise Refused(self.missing)
        with contextlib.suppress(BrokenPipeError):  # `_answer` then finds that torch has ended
            print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self._answer()
        if reason := answer.get("refused") or answer.get("missing"):
            raise Refused(reason)
        return answer

    def _answer(self) -> dict[str, Any]:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            return {"missing": f"the torch process ended with status {self.process.wait()}"}
        return json.loads(line)


class TorchPeer:
    """A torch implementation of attention as a contender."""

    ours = False

    def __init__(self, process: TorchProcess, implementation: str, sizes: AttentionSizes):
        self.process, self.implementation, self.sizes = process, implementation, sizes
        self.name = TORCH[implementation]
        self.passes: Sequence[str] = PASSES if implementation == "flex" else UPDATE
        if implementation != "flex":
            self.name += f" T={workload.causal(sizes).trunk}"

    def pairs(self, step: str) -> int:
        """Return the visible pairs of a pass."""
        sizes = self.sizes if self.implementation == "flex" else workload.causal(self.sizes)
        return sizes.pairs(step == "decode")

    def prepare(self, step: str, seconds: float) -> None:
        """Compile and warm up a pass."""
        self._ask(step, seconds=seconds)

    def sample(self, step: str) -> float:
        """Return the seconds of a call."""
        return self._ask(step, seconds=0)["seconds"]

    def output(self, step: str) -> np.ndarray:
        """Return the output of a pass; see `Contender`."""
        if self.implementation != "flex" and self.sizes.forks:
            raise Refused("its inputs differ from those of the workload")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "output.npy"
            self._ask(step, file=str(file))
            return np.load(file)

    def _ask(self, step: str, **request: Any) -> dict[str, Any]:
        return self.process.ask(impl=self.implementation, **{"pass": step}, **request)
