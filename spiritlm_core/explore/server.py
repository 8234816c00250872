"""The page on a port."""

from fastapi import FastAPI

from spiritlm_core.lake.lake import Lake
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.listening import Listener, guard, mount


class Explorer(Listener):
    """Serves the page of a lake until it is told to end.

    Example:
        >>> with Explorer(Lake("lake"), ServeConfig(port=0)) as server:  # doctest: +SKIP
        ...     server.run()
    """

    def __init__(self, lake: Lake, config: ServeConfig) -> None:
        super().__init__(config)
        self.lake = lake

    def app(self) -> FastAPI:
        """The page behind the guards."""
        from spiritlm_core.explore.actions import Actions
        from spiritlm_core.explore.page import CSS, Page

        app = FastAPI(openapi_url=None)
        guard(app, self.config)
        kept = self.kept()
        return mount(app, Page(Actions(self.lake, kept)).blocks(), self.config, kept, CSS)
