"""BuildKit's gRPC interfaces: messages (`api.pb`, generated from `api/proto`) and the methods of its services."""
