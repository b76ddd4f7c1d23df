"""A form with one file, as BentoML takes raw bytes."""

from __future__ import annotations

BOUNDARY = "bench"
FORM_START = (
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="x"; filename="x"\r\n'
    "content-type: application/octet-stream\r\n\r\n"
).encode()
FORM_END = f"\r\n--{BOUNDARY}--\r\n".encode()
FORM_HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
