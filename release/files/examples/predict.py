"""Load a model, run it on zeros, and keep the inference: `python predict.py SOCKET PACKAGE`."""

import contextlib
import sys

import numpy as np

from lightkeeper.client import Client
from lightkeeper.errors import ModelAlreadyLoaded

address, package = sys.argv[1:3]
with Client(address) as client:
    with contextlib.suppress(ModelAlreadyLoaded):  # by an earlier run
        client.load_model(package, "example")
    model = client.describe_model("example")
    inputs = {
        tensor.name: np.zeros([max(size, 1) for size in tensor.shape], tensor.data_type.dtype)
        for tensor in model.inputs
    }
    outputs = client.predict("example", inputs)
    print({name: output.shape for name, output in outputs.items()})
    print("captured as", client.capture_data("example", inputs=inputs, outputs=outputs))
