"""Providers: who carries data between the device and its cloud. One file a provider."""
