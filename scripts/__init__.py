"""Commands behind make targets that are no part of the product's API."""
