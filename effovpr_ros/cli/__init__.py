"""The effovpr command."""
