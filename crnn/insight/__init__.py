"""What can be shown of a song without learning anything more."""
