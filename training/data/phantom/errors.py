"""What can be wrong with a wish for phantoms."""


class PhantomError(ValueError):
    """A phantom was asked for that cannot be drawn."""
