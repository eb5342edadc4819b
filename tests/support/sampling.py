"""Run `launch.sample` in this process."""

from types import SimpleNamespace

from launch import sample

DEFAULTS = {
    "CHAT": False, "SYSTEM": "", "BOS": "", "THINK": False, "TARGET": "", "THOUGHTS": 4,
    "LENGTH": 128, "TEMPERATURE": 0.7, "TOP_P": 1.0, "TOP_K": 0, "SEED": 0,
}  # fmt: skip


def printed(monkeypatch, capsys, checkpoint, prompt, **flags):
    """Return the stdout of the program with these flags, named as in its module."""
    values = DEFAULTS | {"CHECKPOINT": str(checkpoint), "PROMPT": prompt} | flags
    for name, value in values.items():
        monkeypatch.setattr(sample, f"_{name}", SimpleNamespace(value=value))
    capsys.readouterr()
    sample.main([])
    return capsys.readouterr().out
