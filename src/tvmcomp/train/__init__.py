"""Training in PyTorch: the small network of the quickstart."""
