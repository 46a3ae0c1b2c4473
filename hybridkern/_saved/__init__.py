"""Models as files: what a model was built from, as JSON, and its weights, as safetensors. No pickles."""
