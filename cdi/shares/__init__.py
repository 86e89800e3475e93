"""Fractional shares: parts of a card's memory and cores, as one transient CDI spec for each claim.

Owns what a share is, what it puts into a container, and the ledger of what each card has handed
out. Leaves out enforcement, which HAMi's libraries do inside the container.

A share depends on the order in which a container sees its devices, and a CDI variable replaces one
of the same name, so shares cannot be combined from static devices: each claim is one CDI device
with everything in it.

>>> share_device("job-7", ["nvidia.com/gpu=0"])
'k8s.hami-core-gpu.project-hami.io/claim=job-7'
"""

from cdi.shares.model import Card, Part, Share, ShareError, share_device

__all__ = ["Card", "Part", "Share", "ShareError", "share_device"]
