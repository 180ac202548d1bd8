"""The bench: real servers for fo to be tried on. No part of the wheel; see README.md."""
