r"""Kubernetes objects for devices: Pods, claims, classes and slices, without a cluster.

Owns what :mod:`modelpack`'s ``k8s`` commands print. Leaves out talking to an API server.

The parts, lowest first: names, quantities, device classes, the extended resources of device
plugins, claims, manifests as text, Pods inside manifests, and on top of them conversion
(:mod:`cdi.kube.convert`), new Pods (:mod:`cdi.kube.render`) and slices (:mod:`cdi.kube.slices`).

>>> from cdi.kube.convert import convert_text
>>> convert_text("kind: ConfigMap  # nothing to convert\n")[0]
'kind: ConfigMap  # nothing to convert\n'
"""
