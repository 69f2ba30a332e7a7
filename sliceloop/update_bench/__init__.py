<<<<<<< HEAD
"""Update bench: what new weights cost on their way, at the swap, and when they are bad."""
=======
"""What an update costs an edge that has the release before: bytes by kind of training and by layout."""
>>>>>>> 3fc0cf052f67c2e82c3278527c5858cf1ec89d81
