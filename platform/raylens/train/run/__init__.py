"""A run from its start to its registered model: preparation, launch, worker and event bus."""
