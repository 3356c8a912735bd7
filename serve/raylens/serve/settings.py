"""The limits of a service and how it batches: one frozen object, handed to every process of it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raylens.config import Node

__all__ = ["ServeSettings"]

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class ServeSettings(Node):
    """What one request, and all requests together, may ask for."""

    max_body_bytes: Positive = 32 * 2**20
    """A larger body is refused with status 413."""
    max_items: Positive = 2048
    """Inputs of an embedding request; images, or prompts (classes times templates), of a classification."""
    max_text_chars: Positive = 32_768
    """A longer text fails its item: tokenising takes time even where all but the first tokens are dropped."""
    max_pixels: Positive = 50_000_000
    """An image that declares more fails its item before it is decoded."""
    max_decode_s: Seconds = 3.0
    """Of a processor, for one image; one that takes longer fails its item."""

    max_batch: Positive = 64
    """Items that go through a tower at once."""
    capacity: Positive = 4096
    """Items of one tower that a replica holds, waiting or running; beyond, requests are refused with status 503."""
    max_wait_s: Seconds = 10.0
    """A replica with more work than this in its queue refuses what comes, with status 503."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Embeddings that a tower of a replica keeps, by their content; 0 keeps none."""
    decode_threads: Positive = 4
    """Threads that decode images and tokenise texts."""
    cached_classifiers: Positive = 64
    """Sets of class prompts whose embeddings the gateway keeps, for each model."""
    body_timeout_s: Seconds = 30.0
    """For the whole body to arrive: a caller that sends a byte now and then holds a place for no longer."""

    follow_s: Seconds = 5.0
    """How often a replica looks where its alias points."""
    overlap_s: Seconds = 30.0
    """How long a replica still answers with the version before, where a request asks for that one."""

    max_ongoing_requests: Positive = 128
    """Requests that one process works on at the same time. Batches are filled from them."""
    max_queued_requests: Positive = 256
    """Requests that wait for such a process; one more is refused with status 503."""
    request_timeout_s: Seconds = 60.0
    startup_timeout_s: Seconds = 300.0
    """Longest wait for the first replica: it includes reading the weights from the registry."""
    drain_timeout_s: Seconds = 20.0
    """What a stopping replica gives the requests that it has begun."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.capacity < self.max_items:
            raise ValueError(
                f"capacity {self.capacity} must be at least max_items {self.max_items}, or the largest request "
                "would never be served"
            )
        return self
