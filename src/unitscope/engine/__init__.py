"""Engine: a forward pass of a network, as it is or compiled by ONNX Runtime."""
