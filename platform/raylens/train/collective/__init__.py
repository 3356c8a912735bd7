"""Communication between the workers of a run: decisions that they share, and metrics reduced over them."""
