"""Files of images to fewer bytes and back: ``hybridkern compress | decompress | inspect``."""
