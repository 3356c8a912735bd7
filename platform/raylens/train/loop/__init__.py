"""The training loop on a worker: batches in, metrics out. It knows neither Ray nor DeepSpeed."""
