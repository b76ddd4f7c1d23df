"""Reading captures back: batches in a folder or a bucket, as numpy arrays, Parquet or `.npz` files.

    from lightkeeper.captures import Wanted, open_captures

    for capture in open_captures("captures").records(Wanted(model="turbine")):
        print(capture.time, capture.outputs[0].array())

The format is docs/spec/capture.md's; docs/captures.md shows what to do with it.
"""

from lightkeeper.captures.place import Bucket, Folder, Objects, Place
from lightkeeper.captures.reader import Captures, Damage, Wanted, open_captures
from lightkeeper.captures.record import Entry, Record

__all__ = ["Bucket", "Captures", "Damage", "Entry", "Folder", "Objects", "Place", "Record", "Wanted", "open_captures"]
