"""A scanned page read through an agent: `make demo`. Start reading in `ocr.py`."""
