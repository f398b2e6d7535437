"""What models other than decoders are measured by on a task, and the batches that these metrics read."""
