"""OpenStack with two compute hosts on this machine: Debian 13's packages in namespaces, and this project's package."""
