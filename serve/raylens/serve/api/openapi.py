"""The OpenAPI description of the service, for ``/openapi.json`` and ``/docs``."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raylens.serve.api.requests import ClassifyRequest, EmbeddingRequest, SimilarityRequest
from raylens.serve.api.responses import ClassifyResponse, EmbeddingResponse, ModelList, SimilarityResponse

__all__ = ["describe", "describe_app"]

BODIES: tuple[type[BaseModel], ...] = (EmbeddingRequest, SimilarityRequest, ClassifyRequest)
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
)
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
FORM = {
    "type": "object",
    "description": "Files are images and `text` fields are texts, in the order of the form; other fields are options.",
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
        "text": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "model": {"type": "string"},
        "encoding_format": {"enum": ["float", "base64"]},
        "dimensions": {"type": "integer", "minimum": 1},
        "embedding_types": {"type": "string", "description": "Types separated by commas, such as `int8,binary`."},
        "priority": {"enum": ["interactive", "bulk"]},
    },
    "anyOf": [{"required": ["image"]}, {"required": ["text"]}],
    "additionalProperties": False,
}
REFUSALS = {
    400: "the body does not fit the route",
    401: "no valid API key",
    404: "no such model",
    408: "the body arrived too slowly",
    413: "the body is too large",
    429: "the caller exceeded its rate limit; `Retry-After` says when to try again",
    503: "the service is overloaded or not ready; `Retry-After` says when to try again",
    504: "the request took too long",
}
ROUTES: dict[str, tuple[str, str, type[BaseModel] | None, type[BaseModel] | None, dict[str, Any]]] = {
    "embeddings": (
        "Embed texts and images",
        (
            "OpenAI's schema, with images beside texts. An item that fails has an `error`; others are not affected. "
            "The route also takes an `image/*` body, with options in the query, and `multipart/form-data`."
        ),
        EmbeddingRequest,
        EmbeddingResponse,
        {
            "one text": {"input": "a photo of a cat"},
            "texts and images": {"input": ["a photo of a cat", {"image": PIXEL}]},
            "short and small": {"input": ["a cat"], "dimensions": 16, "embedding_types": ["int8", "binary"]},
        },
    ),
    "similarity": (
        "Compare queries with documents",
        "Returns the cosine of each query to each document, or the best documents of each query in order.",
        SimilarityRequest,
        SimilarityResponse,
        {
            "text to images": {
                "queries": ["a red square"],
                "documents": [{"image": PIXEL}, {"text": "a cat"}],
                "top_k": 1,
            }
        },
    ),
    "classify": (
        "Classify images by the names of classes",
        (
            "Zero-shot classification: the prompts of each class are embedded and averaged; the softmax uses the logit "
            "scale that the model learned."
        ),
        ClassifyRequest,
        ClassifyResponse,
        {"two classes": {"images": [PIXEL], "classes": ["cat", "dog"], "templates": ["a photo of a {}."]}},
    ),
    "models": (
        "List the models",
        "Returns versions, hashes, sizes and precision of the models that are served.",
        None,
        ModelList,
        {},
    ),
    "healthz": ("Check that the process is alive", "Needs no API key.", None, None, {}),
    "readyz": (
        "Check that the models embed",
        "Computes inputs whose vectors are known. Needs no API key.",
        None,
        None,
        {},
    ),
    "metrics": ("Metrics for Prometheus", "Returns the metrics of the gateway that answers.", None, None, {}),
}


def describe(route: str) -> dict[str, Any]:
    """Return the arguments of FastAPI's decorator for a route."""
    summary, description, body, answer, examples = ROUTES[route]
    errors = REFUSALS if body else {401: REFUSALS[401], 503: REFUSALS[503], 504: REFUSALS[504]}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": {"schema": ERROR}}}
        for status, text in errors.items()
    }
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        content: dict[str, Any] = {
            "application/json": {
                "schema": schema,
                "examples": {name: {"value": example} for name, example in examples.items()},
            }
        }
        if body is EmbeddingRequest:
            content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
            content["multipart/form-data"] = {"schema": FORM}
        extra["requestBody"] = {"required": True, "content": content}
    if answer is not None:
        responses[200] = {"description": "the answer", "model": answer}
    return {"summary": summary, "description": description, "responses": responses, "openapi_extra": extra}


def describe_app(app: FastAPI, *, keyed: bool) -> None:
    """Add the bodies of requests to the application's description: FastAPI does not read them, so it knows none."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title="raylens", version="1", description="Embeddings of texts and images.", routes=app.routes
            )
            _, definitions = models_json_schema(
                [(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}"
            )
            components = described.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            if keyed:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                described["security"] = [{"key": []}]
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
