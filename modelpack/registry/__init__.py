"""Talking to OCI registries: a careful control plane, and a fast data plane beside it.

Owns the distribution protocol, credentials and tokens. Leaves out what is transferred and why
(``modelpack.transfer``).

- ``options``, ``addresses``, ``errors``, ``retry``: values and rules without I/O;
- ``realms``, ``challenges``, ``auth``, ``credentials``: who may learn which secret;
- ``client``, ``repository``, ``tagschema``, ``uploads``: the control plane and pushing;
- ``ranges``: pulling byte ranges in parallel.

Importing this package is cheap: HTTP clients are imported by the modules that use them.
"""
