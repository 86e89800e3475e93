"""The prefetch daemon: the models a node should have, kept there, within bounds, and shown.

What is wanted (``config``, ``desired``), what to do about it (pure: ``rollout``, ``budget``,
``planning``), doing it (``node`` is the seam, ``nodes/`` the places), and being seen (``status``,
``web/``).
"""
