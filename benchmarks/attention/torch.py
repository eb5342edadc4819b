"""PyTorch's attention on the same device, in a separate process that answers JSON lines.

    python -m benchmarks.attention.torch --docs 2 --dtype bfloat16

`benchmarks.attention` starts it. It prints {"torch": version} or {"missing": reason}, then answers
every JSON line {"impl", "pass", "seconds" of a sample or "file" for an output} with another:
{"seconds" of a call} or {"refused": reason}.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import command, fields
from benchmarks.attention import workload
from benchmarks.attention.turns import enough_calls, first_line
from benchmarks.attention.workload import Arrays, AttentionSizes, NumpyCoordinates

Attend = Callable[..., Any]  # query, key, value, each [B, heads, S, head_dim], to the output


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    fields.add_flags(parser, AttentionSizes)
    sizes = AttentionSizes(**fields.values(parser.parse_args(arguments), AttentionSizes))
    answers, sys.stdout = sys.stdout, sys.stderr  # compilers may print to stdout
    say = lambda answer: print(json.dumps(answer), file=answers, flush=True)
    try:
        import torch
    except ImportError as error:
        say({"missing": f"torch cannot be imported: {error}"})
        return 0
    if not torch.cuda.is_available():
        say({"missing": f"torch {torch.__version__} finds no CUDA device"})
        return 0
    say({"torch": torch.__version__})
    peers = Peers(sizes, torch, "cuda")
    for line in sys.stdin:
        say(peers.answer(json.loads(line)))
    return 0


class Peers:
    """FlexAttention and SDPA on a workload.

    Attributes:
      sizes: the workload.
      torch: the module.
      device: name of the device in torch; timing needs a CUDA device.
    """

    def __init__(self, sizes: AttentionSizes, torch: Any, device: str):
        self.sizes, self.torch, self.device = sizes, torch, device
        self.calls: dict[tuple[str, str], int] = {}
        self.cases: dict[tuple[str, bool], tuple[Attend, list[Any], Any]] = {}
        self.graphs: dict[str, Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; "seconds" above 0 prepare a pass, 0 takes a sample."""
        name, step = request["impl"], request["pass"]
        try:
            if "file" in request:
                np.save(request["file"], self.output(name, step))
                return {}
            if request["seconds"]:
                for _ in range(3):  # compiles, warms up, and estimates the time
                    seconds = self.timed(name, step, 1)
                self.calls[name, step] = enough_calls(seconds, request["seconds"])
                return {}
            return {"seconds": self.timed(name, step, self.calls[name, step])}
        except (RuntimeError, ValueError, TypeError) as error:  # from torch or its compilers
            return {"refused": first_line(error)}

    def timed(self, name: str, step: str, calls: int) -> float:
        """Return the mean seconds of `calls` queued calls."""
        attend, inputs, cotangent = self.prepared(name, step == "decode")
        if step == "decode":
            return self._time_calls(self._graph(name, lambda: attend(*inputs)).replay, calls)
        if step == "forward":
            with self.torch.no_grad():
                return self._time_calls(lambda: attend(*inputs), calls)
        inputs = [x.detach().requires_grad_() for x in inputs]
        if step == "whole":
            run = lambda: self.torch.autograd.grad(attend(*inputs), inputs, cotangent)
            return self._time_calls(run, calls)
        out = attend(*inputs)
        run = lambda: self.torch.autograd.grad(out, inputs, cotangent, retain_graph=True)
        return self._time_calls(run, calls)

    def output(self, name: str, step: str) -> np.ndarray:
        """Return the output [B, S, heads, head_dim], float32."""
        attend, inputs, _ = self.prepared(name, step == "decode")
        with self.torch.no_grad():
            return attend(*inputs).transpose(1, 2).float().cpu().numpy()

    def prepared(self, name: str, decode: bool) -> tuple[Attend, list[Any], Any]:
        """Return a function, its inputs and a cotangent; cached."""
        if (name, decode) not in self.cases:
            sizes = self.sizes if name == "flex" else workload.causal(self.sizes)
            attend = self.flex(decode) if name == "flex" else self.sdpa(name)
            inputs = self._put(workload.packed(workload.arrays(sizes, decode)))
            self.cases[name, decode] = (attend, *inputs)
        return self.cases[name, decode]

    def flex(self, decode: bool) -> Attend:
        """Return FlexAttention with the rule of the mask; its block mask is computed here."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        query, key = map(self._on_device, workload.packed_coordinates(self.sizes, decode))

        def rule(b: Any, h: Any, q: Any, k: Any) -> Any:
            same_branch = key["branch"][b, k] == query["branch"][b, q]
            before = (key["branch"][b, k] == 0) & (key["position"][b, k] < query["fork"][b, q])
            same = (key["segment"][b, k] == query["segment"][b, q]) & (key["segment"][b, k] > 0)
            not_after = key["position"][b, k] <= query["position"][b, q]
            return same & not_after & (same_branch | before)

        compiled = self.device == "cuda"
        lengths = (query["segment"].shape[1], key["segment"].shape[1])
        mask = create_block_mask(
            rule, self.sizes.docs, None, *lengths, device=self.device, _compile=compiled
        )
        run = self.torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        return functools.partial(run, block_mask=mask, enable_gqa=True)

    def sdpa(self, name: str) -> Attend:
        """Return SDPA with one backend and a causal mask."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        backend = {"sdpa_cudnn": "CUDNN_ATTENTION", "sdpa_flash": "FLASH_ATTENTION"}[name]
        attend = self.torch.nn.functional.scaled_dot_product_attention

        def run(query: Any, key: Any, value: Any) -> Any:
            with sdpa_kernel(SDPBackend.__members__[backend]):
                return attend(query, key, value, is_causal=True, enable_gqa=True)

        return run

    def _graph(self, name: str, call: Callable[[], Any]) -> Any:
        """Return a CUDA graph of a call that takes less time than Python needs to launch it."""
        if name not in self.graphs:
            with self.torch.no_grad():
                call()  # compiles before the capture
                self.torch.cuda.synchronize()
                graph = self.torch.cuda.CUDAGraph()
                with self.torch.cuda.graph(graph):
                    call()
            self.graphs[name] = graph
        return self.graphs[name]

    def _on_device(self, at: NumpyCoordinates) -> dict[str, Any]:
        put = lambda x: self.torch.from_numpy(x).to(self.device)
        return {name: put(x) for name, x in vars(at).items()}

    def _put(self, arrays: Arrays) -> tuple[list[Any], Any]:
        """Return query, key, value and cotangent, heads first, in the dtype of the workload."""
        dtype = getattr(self.torch, self.sizes.dtype)
        put = lambda x: self.torch.from_numpy(np.ascontiguousarray(x)).to(self.device, dtype)
        heads_first = lambda name: put(arrays[name].swapaxes(1, 2))
        return [heads_first(name) for name in ("query", "key", "value")], heads_first("cotangent")

    def _time_calls(self, call: Callable[[], Any], calls: int) -> float:
        self.torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    command.run(main)
