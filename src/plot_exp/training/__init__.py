"""One optimizer step between model and losses: coupling, gradients by term, step metrics."""
