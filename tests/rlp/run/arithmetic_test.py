"""A run on a CPU says which dtype is faster there, and warns if it is not that of the run."""

import dataclasses
import logging

import pytest

from models import backend
from models.processor import AMD_BF16, AMX, ARM_BF16, AVX512_BF16, Processor
from rlp.run import arithmetic

ALL = (AMX, AMD_BF16, AVX512_BF16, ARM_BF16, "", None)


@pytest.fixture
def records(monkeypatch, caplog):
    """Return a function that calls `log` on a processor and returns the level and the line."""
    caplog.set_level("INFO", "rlp")

    def logged(bfloat16, dtype):
        monkeypatch.setattr(arithmetic, "this_processor", lambda: Processor("Xeon 7", bfloat16))
        caplog.clear()
        arithmetic.log(dtype)
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    return logged


@pytest.mark.parametrize("bfloat16", ALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_line_names_the_processor(bfloat16, dtype, records):
    ((level, line),) = records(bfloat16, dtype)
    assert line.startswith("the processor (Xeon 7) has ")
    slow = dtype == "bfloat16" and bfloat16 in (AVX512_BF16, "")
    assert level == (logging.WARNING if slow else logging.INFO)
    assert line.endswith("; set model.compute_dtype=float32") == slow


def test_on_an_accelerator_the_processor_does_not_matter(records):
    with backend.compiling_for("tpu"):
        assert records(AVX512_BF16, "bfloat16") == []
        assert arithmetic.facts("bfloat16") == {}


def test_processes_differ_in_bfloat16_if_only_some_use_their_instructions(monkeypatch):
    found = {dtype: [] for dtype in ("float32", "bfloat16")}
    for products in (True, False):
        choices = dataclasses.replace(backend.CPU, float32_products=products)
        monkeypatch.setattr(backend, "CPU", choices)
        for dtype, of_dtype in found.items():
            of_dtype.append(arithmetic.facts(dtype))
    assert found["float32"] == [{}, {}]
    assert found["bfloat16"][0] != found["bfloat16"][1]
