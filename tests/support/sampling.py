"""What `launch.sample` prints, in this process."""

from types import SimpleNamespace

from launch import sample

DEFAULTS = {
    "CHAT": False, "SYSTEM": "", "BOS": "", "THINK": False, "TARGET": "", "THOUGHTS": 4,
    "LENGTH": 128, "TEMPERATURE": 0.7, "SEED": 0,
}  # fmt: skip


def printed(monkeypatch, capsys, checkpoint, prompt, **flags):
    """stdout of the program with these flags, by the names that they have in its module."""
    given = DEFAULTS | {"CHECKPOINT": str(checkpoint), "PROMPT": prompt} | flags
    for name, value in given.items():
        monkeypatch.setattr(sample, f"_{name}", SimpleNamespace(value=value))
    capsys.readouterr()
    sample.main([])
    return capsys.readouterr().out
