"""The usual Python client of each contestant, each a process of its own (see `bench.peers.driver`)."""
