"""The explorer: pages about a classifier and an atlas of it, for a browser."""
