"""What happens to a name: its model is loaded, restored after a restart, swapped for a new version, and watched.

`lifecycle.py` is the door; `restoring.py`, `swapping.py` and `watching.py` are the three things that take time, and
all of them change names through `stock.py`, which keeps registry, record and shelf in step. `comparison.py` is pure.
"""
