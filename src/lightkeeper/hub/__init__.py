"""The hub: a fleet's control plane that the AWS SDK already speaks; never needed on a device.

A request's way: `server.py` (sockets, limits) -> `api.py` (who calls, which operation, does it fit) -> one function of
`operations.py` -> `database.py`. Everything that a second hub process would need lies in the database or in S3.
"""
