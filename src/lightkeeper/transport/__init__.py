"""The wire: how the local API travels. Below this package nobody knows protobuf or gRPC."""
