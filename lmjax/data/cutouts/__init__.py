"""Cut-out scenes: photographic cut-outs of objects on photographs, for networks of ImageNet."""
