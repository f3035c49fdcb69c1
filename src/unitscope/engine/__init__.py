"""Engine: the one door through which networks run: as they are, or compiled by ONNX Runtime while they are frozen."""
