"""What the edge may import of training: preprocessing and reading a network's answer."""
