"""ImageNet, its classes, and datasets of masks for its images."""
