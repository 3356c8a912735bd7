"""How a sweep chooses its configurations: candidates, searchers and schedulers."""
