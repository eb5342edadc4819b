"""The measurements on an accelerator: what is run, recorded, kept, tried again and refused."""

import argparse
import json

import pytest

from benchmarks import fields, runs
from benchmarks import measure as machine_facts
from benchmarks.accelerator import __main__, device, plan
from benchmarks.attention import __main__ as attention
from benchmarks.attention.workload import AttentionSizes
from benchmarks.next_token.workload import Workload as NextTokenWorkload
from benchmarks.step.workload import Workload as StepWorkload
from models.attention import IMPLEMENTATIONS
from rlp.capacity.chips import CHIPS
from rlp.runtime.errors import UserError

SIZES = {
    "benchmarks.attention": AttentionSizes,
    "benchmarks.step": StepWorkload,
    "benchmarks.next_token": NextTokenWorkload,
    "benchmarks.recurrence": StepWorkload,
}
H200 = {
    "backend": "gpu", "device_kind": "NVIDIA H200", "devices": 1, "driver": "580.1",
    "runtime": "cuda 13000", "jax": "0.10.2", "jaxlib": "0.10.2",
}  # fmt: skip
STEP = {
    "step_s": 2.0, "rollout_s": 0.5, "score_s": 0.25, "update_s": 1.25, "thought_tokens_per_s": 5e4,
    "model_gflop_per_s": 3e5, "mfu": 0.3033, "device_peak_mib": 51200.0,
}  # fmt: skip
ROW = {
    "impl": "models.attention xla", "pass": "forward", "seconds": [0.002], "ms": 2.0,
    "useful_tflop_per_s": 90.0, "share_of_matmul": 0.12,
}  # fmt: skip
LINES = {
    "benchmarks.attention": {
        "matmul_tflop_per_s": 750.0, "copy_gb_per_s": 4000.0,
        "rows": [ROW, {"impl": "models.attention pallas_gpu", "pass": "forward", "refused": "why"}],
    },
    "benchmarks.step": STEP,
    "benchmarks.next_token": {"step_s": 0.5, "tokens_per_s": 3e4, "model_gflop_per_s": 2e5},
    "benchmarks.recurrence": {"forward_s": 0.05, "gradient_s": 0.1, "decode_s": 0.125},
}  # fmt: skip


class Machine:
    """A fake of `runs.run_line`: a machine with a GPU, where measurements can fail."""

    def __init__(self):
        self.device = H200
        self.failing = ()  # names
        self.ran = []  # names, in order

    def run_line(self, words, name, threads, needed, **options):
        program = words[2]
        if program == "benchmarks.accelerator.device":
            return self.device
        self.ran.append(name)
        if name in self.failing:
            raise runs.RunFailed(f"{name} was stopped after 9 s")
        assert set(needed) <= LINES[program].keys()
        return LINES[program]


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(runs, "run_line", machine.run_line)
    return machine


NAMES = [one.name for one in plan.measurements("gpu")]


def measure(folder, *flags: str) -> int:
    return __main__.main([f"--out={folder}", *flags])


def table_row(folder, name: str) -> list[str]:
    """Return the cells of a row of the table after its name."""
    lines = (folder / "table.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


@pytest.mark.parametrize("backend", plan.ATTENTION)
def test_every_measurement_is_a_command_line_that_its_program_accepts(backend):
    plans = plan.measurements(backend)
    assert {one.program for one in plans} == SIZES.keys()
    assert len({one.name for one in plans}) == len(plans)
    for one in plans:
        words = one.arguments(threads=4)[1:]
        parser = argparse.ArgumentParser(allow_abbrev=False)
        fields.add_flags(parser, SIZES[one.program])
        flags, others = parser.parse_known_args(words)
        sizes = SIZES[one.program](**fields.values(flags, SIZES[one.program]))
        assert sizes.dtype == "bfloat16"
        if one.program == "benchmarks.attention":
            assert attention.main([*words, "--bounds"]) == 0  # reads all flags but the next one
            names = plan.ATTENTION[backend][0]
            assert f"--implementations={names}" in others
            assert set(names.split(",")) <= {"default", *IMPLEMENTATIONS}
        else:
            assert others == []


def test_the_table_has_every_measurement_with_device_versions_and_commands(machine, tmp_path):
    assert measure(tmp_path) == 0
    assert machine.ran == NAMES
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("# One of 1 × NVIDIA H200\n\ndriver 580.1, jax 0.10.2, jaxlib 0.10.2,")
    assert table_row(tmp_path, "RLP, Qwen3-1.7B") == [
        "2", "0.5", "0.25", "1.25", "5e+04", "300", "30.3%", "50.00",
    ]  # fmt: skip
    unknown = ["0.5", "", "", "", "3e+04", "200", "unknown", "unknown"]
    assert table_row(tmp_path, "next token, SmolLM2-135M") == unknown
    assert "## Attention while decoding" in text
    assert "## Recurrence of the hybrid" in text
    assert table_row(tmp_path, "rollout") == ["0.125", "25.0%"]
    assert table_row(tmp_path, "update") == ["0.1", "8.0%"]
    assert "| forward | models.attention pallas_gpu | refused: why |" in text
    assert "A large matmul reaches 750 TFLOP/s and a large copy 4000 GB/s." in text
    assert "Not measured" not in text
    results = json.loads((tmp_path / "results.json").read_text())
    for name in NAMES:
        entry = results["measured"][name]
        assert entry["command"] in text
        assert f"# {name}: {entry['date']} UTC" in text
    assert results["measured"]["RLP, SmolLM2-135M"]["line"] == STEP
    assert results["device"].items() >= H200.items()


def test_what_was_measured_is_kept_and_what_failed_is_tried_again_at_the_end(machine, tmp_path):
    machine.failing = NAMES[:2]
    assert measure(tmp_path) == 1
    assert f"- {NAMES[0]}: {NAMES[0]} was stopped after 9 s" in (tmp_path / "table.md").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    del results["measured"][NAMES[3]]  # as if the program had been killed before it
    (tmp_path / "results.json").write_text(json.dumps(results))
    machine.ran, machine.failing = [], NAMES[1:2]
    assert measure(tmp_path) == 1
    assert machine.ran == [NAMES[3], NAMES[0], NAMES[1]]
    machine.ran, machine.failing = [], ()
    assert measure(tmp_path) == 0
    assert machine.ran == [NAMES[1]]


def test_a_measurement_of_other_sizes_is_measured_anew(machine, tmp_path):
    measure(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    results["measured"][NAMES[2]]["command"] += " --steps=1"
    (tmp_path / "results.json").write_text(json.dumps(results))
    machine.ran = []
    assert measure(tmp_path) == 0
    assert machine.ran == [NAMES[2]]


def test_nothing_starts_when_the_time_is_over(machine, tmp_path):
    assert measure(tmp_path, "--minutes=0.1") == 1
    assert machine.ran == []
    assert f"- {NAMES[0]}: not yet" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        ({}, [], "--out is missing"),
        ({}, ["--out={}", "--minutes=0"], "--minutes=0.0"),
        ({"backend": "cpu"}, ["--out={}"], "needs a GPU or a TPU.*--allow_cpu"),
        ({"backend": "metal"}, ["--out={}"], "'metal'"),
    ],
)
def test_a_bad_call_is_refused_in_one_line_and_leaves_nothing(
    machine, tmp_path, change, flags, message
):
    machine.device = H200 | change
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        __main__.main([flag.format(out) for flag in flags])
    assert not out.exists()


def test_results_of_another_device_are_not_mixed(machine, tmp_path):
    measure(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    machine.device = H200 | {"jax": "0.11.0"}
    with pytest.raises(UserError, match="jax '0.10.2', here it is '0.11.0'"):
        measure(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"device": {}}'])
def test_another_results_file_is_refused(machine, tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results.json was not written by this program"):
        measure(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(machine, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written"):
        measure(tmp_path / "file")


def test_the_device_is_described():
    facts = device.describe()
    assert facts.keys() == H200.keys()
    assert (facts["backend"], facts["device_kind"]) == ("cpu", "cpu")


def test_rates_have_an_mfu_where_the_peak_is_known(monkeypatch):
    peak = CHIPS["h200"].flops
    assert "mfu" not in machine_facts.rates(4.0, 3.0, 1.0, "bfloat16")
    monkeypatch.setattr(machine_facts, "peak_flops", lambda kind, dtype: peak)
    rates = machine_facts.rates(peak, 0.75 * peak, 2.0, "bfloat16")
    assert (rates["mfu"], rates["gflop"]) == (0.375, peak / 1e9)
    assert rates["model_gflop_per_s"] == 0.75 * rates["gflop_per_s"]


@pytest.mark.slow
def test_it_measures_tiny_sizes_on_a_cpu(tmp_path):
    assert measure(tmp_path, "--allow_cpu") == 0
    cells = table_row(tmp_path, "RLP, a tiny network")
    assert all(float(cell) > 0 for cell in cells[:6])
    assert cells[6:] == ["unknown", "unknown"]
    text = (tmp_path / "table.md").read_text()
    for step in ("forward", "backward", "whole", "decode"):
        assert f"| {step} | models.attention default |" in text
        assert f"| {step} | models.attention xla |" in text
    assert "refused" not in text
    before = (tmp_path / "results.json").read_bytes()
    assert measure(tmp_path, "--allow_cpu") == 0  # nothing runs again
    assert json.loads(before) == json.loads((tmp_path / "results.json").read_bytes())
