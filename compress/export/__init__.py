"""What other software takes: ONNX, a hub. One file a format."""
