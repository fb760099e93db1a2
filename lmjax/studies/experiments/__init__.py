"""The studies of lmjax, one file each."""
