"""The libvirt hook: refuses to start a domain on another owner's namespace."""
