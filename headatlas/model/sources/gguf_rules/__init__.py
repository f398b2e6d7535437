"""What the keys and tensors of a GGUF file mean, architecture by architecture; what is not known is refused by name."""
