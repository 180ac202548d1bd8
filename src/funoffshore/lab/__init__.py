"""A simulated homelab on loopback that speaks the real protocols. Nothing outside ``lab`` and ``cli`` imports it."""
