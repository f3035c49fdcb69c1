"""Accounts: everything about one photo, computed once and kept as plain data."""
