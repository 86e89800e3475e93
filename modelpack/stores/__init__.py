"""Places on this machine where artifacts or their files live."""
