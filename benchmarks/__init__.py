"""What is measured, each by a command of its own: a package, so that no other one of this name comes before it."""
