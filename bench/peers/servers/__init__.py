"""A server for each contestant, set up as its documentation says is fast, all with ONNX Runtime set up alike."""
