"""The OpenAPI description of the HTTP interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from spiritlm_core.serve.schema import (
    ClassifyRequest,
    GenerateRequest,
    SayRequest,
    TokenizeRequest,
    TranscribeRequest,
)

_REQUESTS = (GenerateRequest, TranscribeRequest, SayRequest, ClassifyRequest, TokenizeRequest)
_REFERENCE = "#/components/schemas/{model}"


def takes(schema: type[BaseModel]) -> dict[str, Any]:
    """The body of a route that reads it itself: JSON, a form with files, or a recording alone."""
    json = {"$ref": _REFERENCE.format(model=schema.__name__)}
    form = {
        "type": "object",
        "properties": {"request": json},
        "additionalProperties": {"type": "string", "format": "binary"},
        "description": "JSON in the field `request`, and a file for each audio part that names one.",
    }
    content: dict[str, Any] = {"application/json": {"schema": json}, "multipart/form-data": {"schema": form}}
    if "audio" in schema.model_fields:
        content["audio/*"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What makes the description: FastAPI's, with the schemas of the requests."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, schemas = models_json_schema([(model, "validation") for model in _REQUESTS], ref_template=_REFERENCE)
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    return openapi
