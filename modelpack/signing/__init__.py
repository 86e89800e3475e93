"""Who signed a model, what they said about it, and whether that is enough.

A pure trust core: bytes in, values and verdicts out. Nothing here talks to a registry; ``keyless``
alone talks to certificate and log services, through sigstore, and alone imports it. Importing this
package imports none of its modules, so that a command which needs no trust pays nothing for it.

- ``keys`` and ``cosignkey``: key files, hints, raw signatures
- ``dsse``, ``statement``, ``bundle``: envelopes, what is signed, and how both travel
- ``oms``: OpenSSF Model Signing, the signature over the files
- ``simplesigning``: the older ``sha256-….sig`` shape that other tools' policies still read
- ``keyless``: certificates from an identity token instead of a key
- ``verify``: one verdict for every signature found
- ``policy`` and ``policyfile``: the rules, their file, and their evaluation
"""
