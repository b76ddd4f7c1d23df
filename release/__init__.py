"""Builds releases: one archive a platform, which needs nothing else on the device, in the store that users expect."""
