"""minimllama beside transformers + PEFT: speed, peak memory, and first of all the same numbers."""
