"""A virtual host with NVDIMMs of its own: real ndctl, real device-dax, a real libvirtd, and this project's package."""
