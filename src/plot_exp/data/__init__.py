"""Text in, batches out: sources, tokenisation, layout and the preference distribution."""
