"""Scan: the plan of a scan, its folder, and its stages."""
