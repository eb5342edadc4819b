"""The models that a program compares, named on its command line: --checkpoint=a=runs/a,runs/b."""

from rlp.interop import init_from as starting
from rlp.runtime.errors import UserError


def named_models(checkpoints: str) -> dict[str, str]:
    """Return the models of a list with commas by their names.

    Args:
      checkpoints: entries "<name>=<source>" or "<source>", whose name is the source.

    Raises:
      UserError: If an entry is empty, or two have the same name.
    """
    found: dict[str, str] = {}
    for entry in checkpoints.split(","):
        name, equals, source = entry.strip().partition("=")
        if not equals or "/" in name:  # a path may contain "="
            name = source = entry.strip()
        if not name or not source:
            raise UserError(f"--checkpoint={checkpoints}: an entry is empty; use [name=]<path>[,…]")
        if name in found:
            raise UserError(f"--checkpoint={checkpoints}: {name} occurs twice; give it two names")
        found[name] = source
    return found


def check_models(models: dict[str, str]) -> None:
    """Refuse models that do not exist, before anything long starts.

    Raises:
      UserError: If one does not exist.
    """
    for source in models.values():
        starting.find(source)
