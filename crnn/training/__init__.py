"""All that only training needs."""
