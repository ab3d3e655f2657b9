"""What the page says and does."""
