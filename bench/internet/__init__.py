"""The internet of the bench: names, certificates, registries, charts, downloads and Git, all on one address."""
