"""Model packages: what is in one, and whether to trust it. No network and no runtime in here."""
