"""Deployments: the loaded models are made what the fleet wants.

`plan.py` decides what comes next, and does nothing; `engine.py` does it; `fetching.py` brings packages; `journal.py`
remembers, so that a kill at any point leaves the old version or the new one, and the deployment is finished or
reported as failed.
"""
