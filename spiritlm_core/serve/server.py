"""The server of models: an HTTP interface, and a page with it, before an engine."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fastapi import FastAPI

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.listening import Listener
from spiritlm_core.serve.routes import create_app

logger = logging.getLogger(__name__)


class Server(Listener):
    """Serves models until it is told to end.

    Example:
        >>> with Server(ServeConfig(port=0)) as server:  # doctest: +SKIP
        ...     server.load(["published"])
        ...     server.run()
    """

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        self._engine: Engine | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.close()
        super().__exit__(kind, error, tb)

    def load(self, models: Sequence[str], **options: Any) -> None:
        """Load models, named after their folders, with `options` of :meth:`SpiritLM.from_pretrained`.

        The first is the default. Raises SpiritLMError if one cannot be loaded.
        """
        names = _names(models)
        loaded = {name: SpiritLM.from_pretrained(path, **options) for name, path in zip(names, models, strict=True)}
        for name, spirit in loaded.items():
            _warm(name, spirit)
        self._engine = Engine(loaded, self.config.queue)

    def app(self) -> FastAPI:
        """The HTTP interface, with the page if there is one. Raises SpiritLMError if no model is loaded."""
        if self._engine is None:
            raise SpiritLMError("load a model before the server runs")
        app = create_app(self._engine, self.config)
        if not self.config.page:
            return app
        from spiritlm_core.serve.page import add_page

        return add_page(app, self._engine, self.config, self.kept())

    def release(self) -> None:
        """Give up what is still computed, so that nothing waits for it."""
        if self._engine is not None:
            self._engine.close(wait=0)


def _names(models: Sequence[str]) -> list[str]:
    """Names of folders, as short as tells them apart."""
    paths = [Path(model).resolve() for model in models]
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise SpiritLMError("a model is given twice")


def _warm(name: str, spirit: SpiritLM) -> None:
    """Load what else there is, so that nobody waits for it and what is broken is known at once."""
    try:
        tokenizer = spirit.speech_tokenizer
    except ModelReferenceError as error:
        logger.warning("%s takes no recordings: %s", name, error)
        return
    if tokenizer.has_vocoder:
        _ = tokenizer.vocoder
