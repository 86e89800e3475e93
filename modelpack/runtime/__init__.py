"""Container runtimes as places to pull to: a node's containerd, or Podman's store.

    from modelpack.runtime.containerd import import_model

    result = import_model("registry.example/team/model:v1")
    print(result.image_id)

gRPC is the optional extra ``node``; nothing outside ``grpcapi.py`` imports it, and that only when
a runtime is first talked to.
"""
