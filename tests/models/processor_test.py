"""The instructions of a processor follow from /proc/cpuinfo."""

import platform

import pytest

from models import processor
from models.processor import (
    AMD_BF16,
    AMX,
    ARM_BF16,
    AVX512_BF16,
    Processor,
    parse,
    this_processor,
)

X86 = "processor\t: {0}\nmodel name\t: Xeon {0}\nflags\t\t: fpu avx512f {1}\nbugs\t\t:\n\n"
ARM = "processor\t: {0}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {1}\nCPU part\t: 0xd40\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format(0, "avx512_bf16 amx_bf16 amx_tile"), Processor("Xeon 0", AMX)),
        (X86.format(0, "amx_tile avx512_bf16"), Processor("Xeon 0", AVX512_BF16)),
        (
            "vendor_id\t: AuthenticAMD\n" + X86.format(0, "avx512_bf16"),
            Processor("Xeon 0", AMD_BF16),
        ),
        ("vendor_id\t: AuthenticAMD\n" + X86.format(0, ""), Processor("Xeon 0", "")),
        (
            "vendor_id\t: GenuineIntel\n" + X86.format(0, "avx512_bf16"),
            Processor("Xeon 0", AVX512_BF16),
        ),
        (X86.format(0, "") + X86.format(1, "amx_bf16"), Processor("Xeon 0", "")),
        (ARM.format(0, "bf16 i8mm"), Processor(platform.machine(), ARM_BF16)),
        (ARM.format(0, "svebf16"), Processor(platform.machine(), "")),
        ("processor\t: 0\n\n", Processor(platform.machine(), None)),
    ],
)
def test_a_processor_is_that_of_the_first_core(text, expected):
    assert parse(text.splitlines(keepends=True)) == expected


def test_without_the_file_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert this_processor.__wrapped__() == Processor(platform.machine(), None)
