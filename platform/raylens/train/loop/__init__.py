"""The training loop of a worker: it consumes batches and produces metrics, and knows neither Ray nor DeepSpeed."""
