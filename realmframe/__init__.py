"""realmframe: synced realms as live pandas DataFrames, and the server that feeds them."""

__version__ = "0.1.0"
