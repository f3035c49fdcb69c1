"""Inputs: from a picture file to the network's input, and where that lies on it."""
