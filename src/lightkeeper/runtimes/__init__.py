"""Runtimes: what opens a model file and runs it. One file a runtime."""
