"""One run from its start to its registered model: launch, preparation, worker and event bus."""
