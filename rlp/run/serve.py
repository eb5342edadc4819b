"""Serve a model with OpenAI's interface until a signal."""

import dataclasses
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable

from models.sharding import batch_shards
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.run import evaluated_models
from rlp.run.named_models import check_models, named_models
from rlp.runtime import signals
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError
from rlp.serving.engine import Engine
from rlp.serving.installed import app_and_server
from rlp.serving.service import Service

LOGGER = logging.getLogger(__name__)
LAST_SECONDS = 2.0  # in which clients can read why their requests have failed


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
      host: address to listen on.
      port: of it; 0 for a free one.
      context: most tokens of a prompt with its response; 0 for all that the model reads.
      texts: most texts that a device generates at a time.
      queue: most texts that are generated or wait.
      body_limit: most bytes of a request's body.
      grace: seconds that requests have to finish after a signal.
      fsdp, tensor: sizes of these axes of the mesh; the rest is `data`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    context: int = 0
    texts: int = 16
    queue: int = 512
    body_limit: int = 2**22
    grace: float = 30.0
    fsdp: int = 1
    tensor: int = 1


def serve(checkpoint: str, settings: Settings) -> None:
    """Serve a model, and print one line when it is ready; return after a signal.

    Args:
      checkpoint: [name=]source, as in `rlp.run.named_models`; one model.
      settings: how it is served.

    Raises:
      UserError: If the model or the address cannot be used, or a package is missing.
    """
    _, server = app_and_server()
    sources = named_models(checkpoint)
    if len(sources) > 1:
        raise UserError(f"--checkpoint={checkpoint} has {len(sources)} models; serve one of them")
    check_models(sources)
    bound = server.listening_socket(settings.host, settings.port)
    try:
        ((name, open_model),) = evaluated_models.openers(
            sources, settings.fsdp, settings.tensor
        ).items()
        url = _url(bound)
        ready = lambda: print(_ready_line(name, url), flush=True)
        serving = Serving(open_model(), settings, ready)
        if not ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback:
            LOGGER.warning("%s is open to everyone who can reach it: there is no password", url)
        with signals.first_calls(serving.end):
            serving.run(bound)
    finally:
        bound.close()


class Serving:
    """A model that is served.

    Attributes:
      engine: generates its texts.
    """

    def __init__(
        self, model: EvaluatedModel, settings: Settings, ready: Callable[[], None]
    ) -> None:
        """Create it; `run` starts it.

        Args:
          model: the model.
          settings: how it is served.
          ready: called when connections are accepted.

        Raises:
          UserError: If the model has no limit of its context and the settings have none, or theirs
            is larger.
        """
        app, server = app_and_server()
        limit = _context(model, settings.context)
        generator = dataclasses.replace(
            model.generator,
            context=limit,
            texts=settings.texts * batch_shards(model.generator.mesh),
        )
        self.engine = Engine(generator, model.scorer, settings.queue, failed=self.end)
        service = Service(model, limit, settings.queue)
        routes = app.build_app(service, self.engine, settings.body_limit)
        self._server = server.Server(routes, ready)
        self._grace = _timer(settings.grace, self._fail_requests)
        self._abort = _timer(LAST_SECONDS, self._server.abort)
        self._ending = threading.Lock()  # held once the server is ending

    def run(self, bound: socket.socket) -> None:
        """Serve until `end` is called.

        Args:
          bound: a socket that is bound to an address.

        Raises:
          Exception: What has ended the engine.
        """
        self.engine.start()
        try:
            self._server.run(sockets=[bound])
        finally:
            self._grace.cancel()
            self._abort.cancel()
            self.engine.stop()
        if self.engine.error is not None:
            raise self.engine.error

    def end(self, number: int | None = None) -> None:
        """Accept no more connections, and end when all requests are answered; after the time of
        grace, those that are left fail, and then their connections are closed. May be called by any
        thread."""
        del number  # of the signal that calls this
        if self._ending.acquire(blocking=False):
            self._server.end()
            self._grace.start()

    def _fail_requests(self) -> None:
        """Let the requests that are left fail, and close connections whose clients do not read it.
        The engine first ends its current step, which may have to be compiled."""
        self.engine.stop()
        self._abort.start()


def _timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    """Return a timer that does not keep the program from ending."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    return timer


def _context(model: EvaluatedModel, wanted: int) -> int:
    """Return the most tokens of a prompt with its response."""
    if model.longest is None and not wanted:
        raise UserError(f"{model.name} does not say how long a text may be; set --context")
    if model.longest is not None and wanted > model.longest:
        raise UserError(
            f"--context={wanted} is more than the {model.longest} tokens that {model.name} reads; "
            "lower it"
        )
    return wanted or model.longest or 0


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ready_line(name: str, url: str) -> str:
    """Return the line that says where a model is served, with an example."""
    body = '{"prompt": "Once upon a time", "max_tokens": 32}'
    return f"{printable(name)} is served at {url}; try: curl {url}/v1/completions -d '{body}'"
