"""Serving a model: an HTTP interface and a web page."""
