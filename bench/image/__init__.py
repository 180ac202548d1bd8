"""The Debian image that the bench's machines start from."""
