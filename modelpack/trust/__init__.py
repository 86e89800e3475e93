"""Signing models where they are stored, and deciding whether one may be fetched.

Owns the reading and writing around the pure core in ``signing/`` and ``unsafe/``: referrers,
key files, policy files, records of what was accepted, ``model.sig`` in directories, containerd's
configuration. Leaves out every judgement that those two packages make.

- ``authors``: private keys and identity tokens, as things that sign
- ``attaching``, ``collecting``: bundles as referrers of a manifest, written and read
- ``making``, ``provenance``: which statements a signer makes about a model
- ``places``, ``policies``, ``accepted``: the policy in force, and what it accepted before
- ``content``: what a model's files hold, before they are fetched
- ``checking``, ``gate``: one decision for a manifest, and the same one before a pull
- ``carried``, ``modelsig``: the signature over the files: kept beside them, and verified there
- ``containerd``, ``doctor``: containerd's image verifier, and whether it is asked at all

Importing this package imports none of its modules: a pull without a policy pays nothing for it.
"""
