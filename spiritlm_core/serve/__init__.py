"""Serving a model: an HTTP interface and a web page."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, which would call home
