"""The wire: how the local API travels. Below this package nobody knows protobuf or gRPC."""

SERVICE = "AWS.SageMaker.Edge.Agent"
"""The local API's service, as in proto/agent.proto."""

CONTROL = "lightkeeper.v1.Control"
"""What Lightkeeper's own commands ask of an agent, as in proto/control.proto."""
