"""What an update costs an edge that has the release before: bytes by kind of training and by layout."""
