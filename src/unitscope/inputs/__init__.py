"""Inputs: from a picture file to what the network sees, and where that lies on the photo."""
