"""Look at a machine, or at a recorded tree of one, through the files that describe its hardware.

Owns what all vendors share: the tree and its device nodes (:mod:`cdi.discovery.tree`), PCI and DRM
facts from sysfs (:mod:`cdi.discovery.sysfs`), the dynamic linker's cache
(:mod:`cdi.discovery.ldcache`) and the recording of a tree (:mod:`cdi.discovery.record`). Leaves out
each vendor's own files (:mod:`cdi.vendors`).

>>> from cdi.discovery.tree import parse_node_line
>>> parse_node_line("/dev/kfd c 235:0 0660 0:109")[0]
'/dev/kfd'
"""
