"""The parts of the server that need optional packages."""

import importlib
from types import ModuleType

from rlp.runtime.errors import UserError


def app_and_server() -> tuple[ModuleType, ModuleType]:
    """Return the modules `app` and `server`.

    Raises:
      UserError: If starlette or uvicorn is not installed.
    """
    try:
        importlib.import_module("starlette")
        importlib.import_module("uvicorn")
    except ImportError as error:
        raise UserError(
            "the server needs the packages starlette and uvicorn: "
            "pip install -r requirements-serve.txt"
        ) from error
    app = importlib.import_module("rlp.serving.app")
    return app, importlib.import_module("rlp.serving.server")
