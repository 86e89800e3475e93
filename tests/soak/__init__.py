"""A long run of the daemon on the real containerd, with everything going wrong; ``make soak``."""
