"""Everybody who takes part in a comparison of attention, torch in a process of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from benchmarks.attention import contenders as case
from benchmarks.attention import workload
from benchmarks.attention.contenders import UPDATE
from benchmarks.attention.turns import Contender, Refused
from benchmarks.attention.workload import PASSES, AttentionSizes
from benchmarks.step import fields

TORCH = {
    "flex": "torch FlexAttention, block mask",
    "sdpa_cudnn": "torch SDPA cuDNN, causal",
    "sdpa_flash": "torch SDPA flash, causal",
}


@contextlib.contextmanager
def contenders(
    sizes: AttentionSizes, implementations: Sequence[str], peers: Sequence[str]
) -> Iterator[list[Contender]]:
    """The product's implementations, then the peers; ends the process of torch."""
    found: list[Contender] = [case.product(sizes, name) for name in implementations]
    with contextlib.ExitStack() as ends:
        process = None
        for name in peers:
            if name == "splash":
                from benchmarks.attention import splash  # imports kernels that only TPUs run

                found += [splash.tree(sizes)] if sizes.forks else []
                found.append(splash.causal(sizes))
            elif name in TORCH:
                process = process or ends.enter_context(TorchProcess(sizes))
                found.append(TorchPeer(process, name, sizes))
            else:
                found += jax_peers(sizes, name)
        yield found


def jax_peers(sizes: AttentionSizes, implementation: str) -> list[Contender]:
    """`jax.nn.dot_product_attention` by one of its implementations, on what it can compute."""
    found: list[Contender] = []
    if sizes.forks:
        found.append(case.dense(sizes, implementation))
        found.append(case.copies(sizes, implementation))
    return [*found, case.causal(sizes, implementation)]


class TorchProcess:
    """A running `benchmarks.attention.torch`; a context that ends it."""

    def __init__(self, sizes: AttentionSizes):
        words = [sys.executable, "-m", "benchmarks.attention.torch", *fields.arguments(sizes)]
        self.running = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.missing = self._answer().get("missing")

    def __enter__(self) -> "TorchProcess":
        return self

    def __exit__(self, *_: object) -> None:
        cast(IO[str], self.running.stdin).close()
        self.running.wait()

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
          Refused: torch is missing, cannot do it, or has ended.
        """
        if self.missing:
            raise Refused(self.missing)
        with contextlib.suppress(BrokenPipeError):  # the answer, which is none, says so
            print(json.dumps(asked), file=self.running.stdin, flush=True)
        answer = self._answer()
        if why := answer.get("refused") or answer.get("missing"):
            raise Refused(why)
        return answer

    def _answer(self) -> dict[str, Any]:
        line = cast(IO[str], self.running.stdout).readline()
        if not line:
            return {"missing": f"the process of torch ended with status {self.running.wait()}"}
        return json.loads(line)


class TorchPeer:
    """An attention of torch as a contender."""

    ours = False

    def __init__(self, process: TorchProcess, implementation: str, sizes: AttentionSizes):
        self.process, self.implementation, self.sizes = process, implementation, sizes
        self.name = TORCH[implementation]
        self.passes: Sequence[str] = PASSES if implementation == "flex" else UPDATE
        if implementation != "flex":
            self.name += f" T={workload.causal(sizes).trunk}"

    def pairs(self, step: str) -> int:
        """Visible pairs of a pass."""
        sizes = self.sizes if self.implementation == "flex" else workload.causal(self.sizes)
        return sizes.pairs(step == "decode")

    def prepare(self, step: str, seconds: float) -> None:
        """Compiles and warms up."""
        self._ask(step, seconds=seconds)

    def sample(self, step: str) -> float:
        """Seconds of a call."""
        return self._ask(step, seconds=0)["seconds"]

    def output(self, step: str) -> np.ndarray:
        """The result."""
        if self.implementation != "flex" and self.sizes.forks:
            raise Refused("it has other inputs than the others")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "output.npy"
            self._ask(step, file=str(file))
            return np.load(file)

    def _ask(self, step: str, **asked: Any) -> dict[str, Any]:
        return self.process.ask(impl=self.implementation, **{"pass": step}, **asked)
