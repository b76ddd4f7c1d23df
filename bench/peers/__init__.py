"""The agent beside its peers: a C++ echo, grpcio, Triton, MLServer, LitServe and BentoML. Run by `make bench-peers`.

What runs in a peer's own virtual environment (`clients/`, `servers/`, `catalog.py`, `driver.py`) imports the standard
library, numpy and that peer alone.
"""
