"""Capture: what an application asks to keep of its inferences, kept on the disk until it is where it should be.

The recorder and the delivery share only the spool, so that a cloud that is away cannot reach Predict or CaptureData.
"""
