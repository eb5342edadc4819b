"""Tables in Markdown."""

from rlp import report
from rlp.report import columns


def test_markdown_has_a_row_per_run_with_the_mean_and_the_ends_of_its_seeds():
    seeds = [{"think_loss": 1.0, "flops": 2e9}, {"think_loss": 2.5, "flops": 2e9}, {"flops": 2e9}]
    table = report.markdown_table({"rlp": seeds, "b": [{}]}, ["flops", "think_loss"])
    assert table.splitlines() == [
        "| run   | Training, compute (FLOPs) | Loss, thinking (nats/token) |",
        "| ----- | ------------------------: | --------------------------: |",
        "| `rlp` |                    2.00e9 |        1.750 [1.000, 2.500] |",
        "| `b`   |                         - |                           - |",
    ]
    every = report.markdown_table({"rlp": seeds}).splitlines()
    assert every[0].count("|") == 2 + len(columns.shown_columns([]))
