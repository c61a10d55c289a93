"""From a canonical model to a linked library."""
