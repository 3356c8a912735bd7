"""The HTTP schema of the embedding API: requests, responses, errors and OpenAPI."""
