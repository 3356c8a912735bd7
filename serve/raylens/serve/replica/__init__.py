"""A replica of a model: towers, their device, and the batcher that feeds it."""
