"""Headquarters' settings in its database: legal entities and channels, compared with files and applied."""
