"""Sources of image files: folders and tables."""
