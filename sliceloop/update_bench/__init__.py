"""Update bench: what new weights cost on their way, at the swap, and when they are bad."""
