"""Evaluate TorchANI models over batches of structures, faster than one torchani call per structure."""
