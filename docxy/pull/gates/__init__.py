"""What an operator ordered, enforced on every way to an image."""
