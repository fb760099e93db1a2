"""Images in files of one's own: folders and tables."""
